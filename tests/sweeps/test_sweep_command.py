"""The command sweep.py: the trials that it lists and the flags that it refuses."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import fake_bucket
from helpers.entry_points import assert_refused, run
from helpers.toy_sweep import toy_sweep
from sweeps.launch import VERSION, Placement, make_plan
from sweeps.launch import run as run_plan
from sweeps.search_space import Space, seeds
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "configs" / "sweeps").glob("[!_]*.py"))
CONFIG = "--config=configs/cldr.py:transformer"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_that_is_shipped_lists_its_trials(path):
    done = run("sweep.py", CONFIG, f"--space={path}", "--dry_run")
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert lines[-1].startswith(f"{len(lines) - 1} trials, 1 at once on this machine: ")
    assert [int(line.split()[0]) for line in lines[:-1]] == list(range(len(lines) - 1))
    text = path.read_text()
    assert f"--space=configs/sweeps/{path.name}" in text


def test_a_space_may_set_the_model_and_any_key(tmp_path):
    space = tmp_path / "space.py"
    space.write_text(
        "from sweeps.search_space import *\n"
        "def get_space():\n"
        "    return Space(grid({'model': ['rnn', 'transformer'], 'seed': [3]}))\n"
    )
    done = run("sweep.py", CONFIG, f"--space={space}", "--dry_run", "--trials=1")
    line, total = done.stdout.decode().splitlines()
    assert (line, total[:9]) == ("    0  model=rnn seed=3", "1 trials,")


def test_the_placement_of_trials_is_printed(tmp_path):
    def placement(*flags):
        done = refused(tmp_path, "seeds", "--dry_run", *flags)
        return done.stdout.decode().splitlines()[-1]

    expected = "3 trials as one program on an equal share of the CPU cores each"
    line = placement("--workers=2", "--population=3")
    assert line == f"5 trials, 2 at once on this machine: {expected}"
    address = ["--coordinator=host:1234", "--num_processes=4", "--process_id=2"]
    expected = "the 4 processes of host-1234, of which this is process 2"
    line = placement("--placement=slice", *address)
    assert line == f"5 trials, 1 at once on {expected}"
    done = refused(tmp_path, "seeds", "--placement=slice", "--dry_run")
    assert_refused(done, "--placement=slice needs TPU_WORKER_ID")
    slices = ["--placement=slice", *address]
    done = refused(tmp_path, "seeds", "--dry_run", "--workers=2", *slices)
    assert_refused(done, "set neither --workers nor --population")


def refused(tmp_path, space="seeds", *flags):
    given = space if str(space).endswith(".py") else f"configs/sweeps/{space}.py"
    return run("sweep.py", CONFIG, f"--space={given}", *flags)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.dropuot", ["model.dropuot", "model.dropout"]),
        ("lr", ["optim.lr"]),
        ("model.name", ['set "model"']),
        ("model.cell", ["model.cell"]),
    ],
)
def test_an_unknown_key_is_refused_with_similar_ones(tmp_path, key, words):
    space = tmp_path / "space.py"
    space.write_text(
        "from sweeps.search_space import *\n"
        f"def get_space():\n    return Space(grid({{{key!r}: [1]}}))\n"
    )
    done = refused(tmp_path, space, "--dry_run")
    assert_refused(done, *words)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("random({'model.layers': uniform(1, 4)}, 3)", ["model.layers", "int"]),
        ("grid({'optim.lr': [1e-3, 'fast']})", ["optim.lr", "'fast'", "float"]),
        ("grid({'model': ['rnn', 'transfomer']})", ["transfomer", "transformer_xl"]),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_before_a_trial_begins(
    tmp_path, points, words
):
    space = tmp_path / "space.py"
    space.write_text(
        f"from sweeps.search_space import *\nget_space = lambda: Space({points})\n"
    )
    assert_refused(refused(tmp_path, space, "--dry_run"), *words)


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ("grid({'data.seed': [0, -1]})", "data.seed=-1 must be in 0"),
        ("random({'optim.b1': uniform(0.9, 1.1)}, 3)", "optim.b1=1."),
        ("grid({'steps': [1, None]})", "steps=None must have a value"),
    ],
)
def test_an_impossible_value_is_refused_before_anything_is_written(
    tmp_path, points, word
):
    space, workdir = tmp_path / "space.py", tmp_path / "w"
    space.write_text(
        f"from sweeps.search_space import *\nget_space = lambda: Space({points})\n"
    )
    assert_refused(refused(tmp_path, space, f"--workdir={workdir}"), word)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("grid({'head.pooling': ['bogus']})", "head.pooling"),
        ("grid({'optim.lr': [float('inf')]})", "optim.lr=inf"),
        ("grid({'seed': [1]}), metric='bogus'", "Unknown metric 'bogus'"),
    ],
)
def test_a_dry_run_refuses_what_the_sweep_would(tmp_path, arguments, words):
    space = tmp_path / "space.py"
    space.write_text(
        "from sweeps.search_space import *\n"
        f"def get_space():\n    return Space({arguments})\n"
    )
    done = run("sweep.py", CONFIG, f"--space={space}", "--dry_run")
    assert_refused(done, words)


def test_impossible_rungs_are_refused_before_anything_is_written(tmp_path):
    space, workdir = tmp_path / "space.py", f"--workdir={tmp_path / 'w'}"
    points = "Space(seeds(2), pruning=hyperband())"
    space.write_text(
        f"from sweeps.search_space import *\nget_space = lambda: {points}\n"
    )
    for flags in (["--dry_run"], [workdir]):
        done = refused(tmp_path, space, "--config.epochs=3", *flags)
        assert_refused(done, "hyperband(max_steps=N), or --config.epochs=0")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_command_that_a_space_names_can_be_planned(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    [line] = [line for line in text.splitlines() if "python sweep.py" in line]
    given = dict(word[2:].split("=") for word in line.split() if word.startswith("--"))
    overrides = {
        key.removeprefix("config."): ast.literal_eval(value)
        for key, value in given.items()
        if key.startswith("config.")
    }
    trials = int(given["trials"]) if "trials" in given else None
    assert given["space"] == f"configs/sweeps/{path.name}"
    plan = make_plan(given["config"], overrides, given["space"], trials)
    assert plan.table("here").endswith(f"{plan.num_trials} trials, here")


def test_missing_and_impossible_flags_are_refused_in_one_line(tmp_path):
    assert_refused(refused(tmp_path, "nothing", "--dry_run"), "learning_rate.py")
    assert_refused(refused(tmp_path), "--workdir=DIR is missing")
    assert_refused(run("sweep.py", CONFIG), "--space=FILE is missing")
    assert_refused(refused(tmp_path, "seeds", "--dry_run", "--trials=6"), "5 points")
    workdir = f"--workdir={tmp_path / 'w'}"
    assert_refused(refused(tmp_path, "seeds", workdir, "--workers=0"), "--workers=0")
    assert_refused(
        refused(tmp_path, "seeds", "--workdir=ftp://b/c"), "Unknown address ftp://b/c"
    )


def test_a_folder_of_an_older_version_is_refused(tmp_path):
    done = refused(tmp_path, "seeds", f"--workdir={tmp_path}", "--status")
    assert_refused(done, "is not the folder of a sweep: no sweep.json")
    made = sweep_json(["--config.steps=1"], "seeds")
    (tmp_path / "sweep.json").write_text(json.dumps(made))
    (tmp_path / "journal.log").touch()
    done = refused(tmp_path, "seeds", "--config.steps=1", f"--workdir={tmp_path}")
    assert_refused(done, "holds a sweep of another version of this code")


def test_the_status_is_printed_from_the_folder_alone(tmp_path):
    toy_sweep(tmp_path, Space(seeds(2))).run()
    done = run("sweep.py", "--status", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr.decode()
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert rows[0][:7] == [
        "trial",
        "state",
        "loss",
        "step",
        "attempts",
        "chip-hours",
        "lost",
    ]
    assert [row[:5] for row in rows[1:3]] == [
        ["0", "done", "100.1", "10", "1"],
        ["1", "done", "101.1", "10", "1"],
    ]
    assert rows[1][-1] == "seed=0"
    assert rows[-1][0] == "total"


def test_the_status_of_a_damaged_sweep_is_one_line(tmp_path):
    workdir = tmp_path / "sweep"
    workdir.mkdir()
    metric = {"split": "validation", "name": "loss", "direction": "min"}
    description = {"version": VERSION, "metric": metric, "config": {}, "space": {}}
    (workdir / "sweep.json").write_text(json.dumps(description))
    (workdir / "trials.jsonl").write_text('{"trial": 0, "poi')
    done = run("sweep.py", "--status", f"--workdir={workdir}")
    assert_refused(done, "is a damaged sweep")


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = refused(tmp_path, "seeds", f"--workdir={tmp_path}")
    assert_refused(done, "is a run directory", "choose another --workdir")


def test_another_space_or_config_is_refused_and_nothing_runs(tmp_path):
    workdir = f"--workdir={tmp_path}"
    plain = ["--config.steps=1", workdir]
    (tmp_path / "sweep.json").touch()  # as if it had started
    made = {**sweep_json(["--config.steps=1"], "seeds"), "version": VERSION}
    (tmp_path / "sweep.json").write_text(json.dumps(made))
    assert_refused(refused(tmp_path, "grid", *plain), "another search space")
    done = refused(tmp_path, "seeds", "--config.steps=2", workdir)
    assert_refused(done, "another config", "steps is 1 there and 2 here")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


@pytest.fixture
def bucket(monkeypatch):
    with fake_bucket.serve() as (fake, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield fake


def refusal(workdir, space="seeds"):
    """Returns why sweep.py refuses a folder, from this process."""
    file = f"configs/sweeps/{space}.py"
    plan = make_plan("configs/cldr.py:transformer", {}, file, None)
    with pytest.raises(UserError) as error:
        run_plan(plan, workdir, Placement())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_impossible_folders_in_buckets_are_refused_in_one_line(bucket):
    made = {**sweep_json(["--config.steps=1"], "seeds"), "version": VERSION}
    bucket.objects["bucket", "sweep/sweep.json"] = json.dumps(made).encode(), 1
    assert "another config: steps is 1 there" in refusal("gs://bucket/sweep")
    made["config"] = make_plan(
        "configs/cldr.py:transformer", {}, "configs/sweeps/seeds.py", None
    ).to_dict()["config"]
    bucket.objects["bucket", "sweep/sweep.json"] = json.dumps(made).encode(), 1
    assert "another search space" in refusal("gs://bucket/sweep", "grid")
    bucket.objects["bucket", "run/config.json"] = b"{}", 1
    assert "is a run directory" in refusal("gs://bucket/run")
    assert "the bucket missing does not exist" in refusal("gs://missing/sweep")
    bucket.refuses = True
    assert "refuses access (OSError: Forbidden" in refusal("gs://bucket/new")
    bucket.draw_fault = lambda url: 401
    assert "are its name and your credentials right?" in refusal("gs://bucket/new")


def sweep_json(flags, space):
    overrides = {"steps": int(flags[0].partition("=")[2])}
    file = f"configs/sweeps/{space}.py"
    return make_plan("configs/cldr.py:transformer", overrides, file, None).to_dict()


def test_the_process_of_a_sweep_holds_no_device(tmp_path):
    """The number of devices can be set, which fails once a device is in use."""
    done = run_python(
        "import jax, experiment.build, tasks, sweeps.worker\n"
        "from experiment.build import get_task_class\n"
        "get_task_class('translation')\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "print(jax.device_count())"
    )
    assert done.strip() == "3"


def run_python(text):
    order = [sys.executable, "-c", text]
    done = subprocess.run(order, capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout
