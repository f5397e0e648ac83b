"""Sweeps as a user runs them: killed and gone on with, shared, refused, listed."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toy_trial
from entry_points import assert_refused, run
from toy_sweep import LOSS, begin, results, toy_sweep

from sweeps import ledger
from sweeps.ledger import Attempt, Slot
from sweeps.spaces import Space, asha, grid, log_uniform, tpe
from sweeps.table import Table, best_slot, final_table, summary, time_left
from sweeps.trial import meaning

ROOT = Path(__file__).parent.parent
SPACES = sorted((ROOT / "configs" / "sweeps").glob("[!_]*.py"))


def lines(folder, slot, name):
    path = folder / "trials" / f"{slot:04}" / name
    return path.read_text().splitlines() if path.exists() else []


def steps(folder, slot):
    return [json.loads(line)["step"] for line in lines(folder, slot, "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert toy_sweep(folder, workers=4).run() == 0
    return folder


def assert_as_whole(folder, whole):
    assert results(folder) == results(whole)
    for slot in range(12):
        assert steps(folder, slot) == list(range(1, toy_trial.STEPS + 1))
        assert lines(folder, slot, "ends") == ["end"]


def test_all_trials_are_done_once(whole):
    found = results(whole)
    assert [row["state"] for row in found] == ["done"] * 12
    assert [row["point"] for row in found] == [{"seed": n} for n in range(12)]
    assert [row["value"] for row in found] == [100 + n + 0.1 for n in range(12)]
    assert_as_whole(whole, whole)


def in_the_middle(folder):
    """Slots with some steps, not all."""
    return [n for n in range(12) if 0 < len(steps(folder, n)) < toy_trial.STEPS]


def test_a_sweep_killed_twice_ends_as_if_it_had_not_been(tmp_path, whole):
    killed = []
    for wanted in (1, 5):
        process = begin(tmp_path)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            middle = [n for n in in_the_middle(tmp_path) if n >= wanted]
            if middle:
                break
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed += [n for n in in_the_middle(tmp_path) if n >= wanted]
    assert len(killed) >= 2
    assert begin(tmp_path).wait(60) == 0
    assert_as_whole(tmp_path, whole)
    for slot in killed:
        assert len(lines(tmp_path, slot, "processes")) >= 2
        assert (
            "begins after 0"
            not in (tmp_path / "logs" / f"{slot:04}.log").read_text().splitlines()[-1:]
        )


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_a_sweep(tmp_path, whole, kind):
    url = [f"sqlite:///{tmp_path}/study.db"] if kind == "sqlite" else []
    both = [begin(tmp_path, *url) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert_as_whole(tmp_path, whole)
    for slot in range(12):
        assert len(lines(tmp_path, slot, "processes")) == 1


def test_a_trial_whose_end_nobody_saw_is_not_begun_again(tmp_path, whole):
    shutil.copytree(whole / "trials", tmp_path / "trials")
    for folder in (tmp_path / "trials").iterdir():
        (folder / "processes").unlink()
    assert toy_sweep(tmp_path).run() == 0
    assert_as_whole(tmp_path, whole)
    assert not list(tmp_path.glob("trials/*/processes"))


def test_trials_end_with_the_process_that_began_them(tmp_path):
    process = begin(tmp_path)
    while not in_the_middle(tmp_path):
        time.sleep(0.005)
    process.kill()  # that one alone, not its group
    process.wait()
    trials = [int(pid) for n in range(12) for pid in lines(tmp_path, n, "processes")]
    deadline = time.monotonic() + 5
    while any(map(is_running, trials)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, trials))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, whole):
    stopped = threading.Event()
    sweep = toy_sweep(tmp_path, stopped=stopped)
    waiting = threading.Timer(1.0, stopped.set)
    waiting.start()
    assert sweep.run() == 75
    assert all(running is None for running in sweep.running)
    assert "running" not in {row["state"] for row in results(tmp_path)}
    assert toy_sweep(tmp_path, workers=4).run() == 0
    assert_as_whole(tmp_path, whole)


def test_trouble_of_some_trials_is_told_and_the_others_are_done(tmp_path):
    trouble = [toy_trial.DIVERGES, toy_trial.FAILS, toy_trial.FAILS_ONCE, 7]
    out = io.StringIO()
    sweep = toy_sweep(tmp_path, Space(grid({"seed": trouble}), retries=2), out=out)
    assert sweep.run() == 0
    found = results(tmp_path)
    assert [r["state"] for r in found] == ["diverged", "failed", "done", "done"]
    assert found[1]["error"] == "exit code 1: boom"
    attempts = [len(lines(tmp_path, n, "processes")) for n in range(4)]
    assert attempts == [1, 3, 2, 1]
    assert "1 diverged, 1 failed" in out.getvalue()
    before = attempts
    assert toy_sweep(tmp_path, Space(grid({"seed": trouble}), retries=2)).run() == 0
    assert [len(lines(tmp_path, n, "processes")) for n in range(4)] == before


def test_a_key_that_only_some_models_have_fails_where_it_is_missing(tmp_path):
    space = Space(grid({"model": ["rnn", "transformer"], "model.heads": [4]}))
    assert toy_sweep(tmp_path, space).run() == 0
    found = results(tmp_path)
    assert [row["state"] for row in found] == ["failed", "done"]
    assert "model.heads" in found[0]["error"]
    assert not (tmp_path / "trials" / "0000").exists()


def test_bad_trials_are_stopped_early_and_recorded(tmp_path):
    rates = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7]
    space = Space(grid({"optim.lr": rates}), pruning=asha(factor=2))
    assert toy_sweep(tmp_path, space, workers=1).run() == 0
    found = results(tmp_path)
    assert found[0]["state"] == "done"
    assert [row["state"] for row in found[3:]] == ["pruned"] * 3
    for row in found[3:]:
        assert len(steps(tmp_path, row["trial"])) < toy_trial.STEPS
    assert toy_sweep(tmp_path, space, workers=1).run() == 0  # they stay as they are
    assert results(tmp_path) == found


def test_tpe_runs_as_any_other_space(tmp_path):
    space = Space(tpe({"optim.lr": log_uniform(1e-4, 1e-1)}, size=4))
    assert toy_sweep(tmp_path, space).run() == 0
    rates = [row["point"]["optim.lr"] for row in results(tmp_path)]
    assert len(set(rates)) == 4
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)


def test_who_was_taken_for_dead_ends_its_trial_at_once(tmp_path, capsys):
    space = Space(grid({"seed": [toy_trial.WAITS]}))
    sweep = toy_sweep(tmp_path, space, workers=1)
    sweep._step()
    (running,) = sweep.running
    heir = toy_sweep(tmp_path, space, workers=1)
    heir.study.watch.is_alive = lambda *_: False
    assert heir.study.claim().slot == 0
    running.renewed -= 1000  # it is time to
    sweep._step()
    assert running.process.code() == -signal.SIGKILL
    assert sweep.running == [None]
    assert "taken over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "asked", "outcome"),
    [
        (0, False, ledger.DONE),
        (0, True, ledger.DONE),
        (3, False, ledger.DIVERGED),
        (75, False, ledger.INTERRUPTED),  # of its own accord
        (-signal.SIGTERM, True, ledger.INTERRUPTED),  # before it listened
        (-signal.SIGKILL, False, ledger.FAILED),  # out of memory, perhaps
        (2, False, ledger.FAILED),
        (1, True, ledger.FAILED),
    ],
)
def test_exit_codes_mean_what_they_do_for_a_run(code, asked, outcome):
    assert meaning(code, asked) == outcome


def slot(number, state, value=None, seconds=None):
    ended = state if state in ledger.ENDED else None
    point = {"optim.lr": 0.1 * number}
    attempt = Attempt(number, number, 0, ended, None, point, value, 3, "boom", None)
    object.__setattr__(attempt, "seconds", seconds)
    return Slot(number, state, () if state == ledger.OPEN else (attempt,))


SLOTS = [
    slot(0, ledger.DONE, 2.0, 10.0),
    slot(1, ledger.DONE, 1.0, 20.0),
    slot(2, ledger.PRUNED, 0.5, 6.0),
    slot(3, ledger.FAILED, None, 4.0),
    slot(4, ledger.RUNNING),
    slot(5, ledger.OPEN),
]


def test_one_line_says_how_a_sweep_goes():
    told = summary(SLOTS, LOSS, workers=1, shares=[0.5])
    expected = (
        "2 done, 1 running, 1 pruned, 1 failed, best loss 1 (trial 1), 0:00:15 left"
    )
    assert told == f"6 trials: {expected}"  # 1.5 trials of 10 seconds


def test_what_was_stopped_early_is_never_the_best():
    assert best_slot(SLOTS, LOSS).number == 1
    assert best_slot(SLOTS[2:], LOSS) is None
    assert time_left(SLOTS[4:], 1, []) is None


def test_the_last_table_begins_with_the_best_and_ends_with_errors():
    told = final_table(SLOTS[:4], LOSS).splitlines()
    assert [line.split()[0] for line in told] == ["trial", "1", "0", "2", "3", "boom"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_table_is_drawn_over_itself():
    out = Terminal()
    table = Table(LOSS, 10, 1, out)
    table.show(SLOTS, {4: None})
    assert len(out.getvalue().splitlines()) == 2  # the summary and a trial that runs
    table.show(SLOTS, {4: None})
    assert "\x1b[2A" in out.getvalue()


def test_elsewhere_a_line_is_written_only_for_news():
    out = io.StringIO()
    table = Table(LOSS, 10, 1, out)
    for _ in range(3):
        table.show(SLOTS, {4: None})
    assert len(out.getvalue().splitlines()) == 1


CONFIG = "--config=configs/cldr.py:transformer"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_that_is_shipped_lists_its_trials(path):
    done = run("sweep.py", CONFIG, f"--space={path}", "--dry_run")
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode().splitlines()
    assert told[-1] == f"{len(told) - 1} trials"
    assert [int(line.split()[0]) for line in told[:-1]] == list(range(len(told) - 1))
    text = path.read_text()
    assert f"--space=configs/sweeps/{path.name}" in text


def test_the_model_and_any_key_may_be_swept(tmp_path):
    space = tmp_path / "space.py"
    space.write_text(
        "from sweeps.spaces import *\n"
        "def get_space():\n"
        "    return Space(grid({'model': ['rnn', 'transformer'], 'seed': [3]}))\n"
    )
    done = run("sweep.py", CONFIG, f"--space={space}", "--dry_run", "--trials=1")
    assert done.stdout.decode().splitlines() == ["    0  model=rnn seed=3", "1 trials"]


def refused(tmp_path, space="seeds", *flags):
    given = space if str(space).endswith(".py") else f"configs/sweeps/{space}.py"
    return run("sweep.py", CONFIG, f"--space={given}", *flags)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.dropuot", ["model.dropuot", "model.dropout"]),
        ("lr", ["optim.lr"]),
        ("model.name", ['use "model"']),
        ("model.cell", ["model.cell"]),
    ],
)
def test_a_key_that_does_not_exist_is_refused_with_near_ones(tmp_path, key, words):
    space = tmp_path / "space.py"
    space.write_text(
        "from sweeps.spaces import *\n"
        f"def get_space():\n    return Space(grid({{{key!r}: [1]}}))\n"
    )
    done = refused(tmp_path, space, "--dry_run")
    assert_refused(done, *words)


def test_what_is_missing_or_impossible_is_refused_in_one_line(tmp_path):
    assert_refused(refused(tmp_path, "nothing", "--dry_run"), "learning_rate.py")
    assert_refused(refused(tmp_path), "--workdir=DIR is missing")
    assert_refused(run("sweep.py", CONFIG), "--space=FILE is missing")
    assert_refused(refused(tmp_path, "seeds", "--dry_run", "--trials=6"), "5 points")
    workdir = f"--workdir={tmp_path / 'w'}"
    assert_refused(refused(tmp_path, "seeds", workdir, "--workers=0"), "--workers=0")
    done = refused(tmp_path, "seeds", workdir, "--storage=nonsense")
    assert_refused(done, "--storage=nonsense")


def test_a_directory_that_is_no_sweep_s_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = refused(tmp_path, "seeds", f"--workdir={tmp_path}")
    assert_refused(done, "is a run directory", "choose another --workdir")


def test_another_space_or_config_is_refused_and_nothing_is_run(tmp_path):
    workdir = f"--workdir={tmp_path}"
    plain = ["--config.steps=1", workdir]
    (tmp_path / "sweep.json").touch()  # as if it had begun
    made = sweep_json(["--config.steps=1"], "seeds")
    (tmp_path / "sweep.json").write_text(json.dumps(made))
    assert_refused(refused(tmp_path, "grid", *plain), "the space has changed")
    done = refused(tmp_path, "seeds", "--config.steps=2", workdir)
    assert_refused(done, "another config", "steps is 1 there and 2 here")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def sweep_json(flags, space):
    from sweeps.launch import make_plan

    overrides = {"steps": int(flags[0].partition("=")[2])}
    file = f"configs/sweeps/{space}.py"
    return make_plan("configs/cldr.py:transformer", overrides, file, None).describe()


def test_the_process_of_a_sweep_holds_no_device(tmp_path):
    """What would fail once a device is in use: setting how many there are."""
    done = run_python(
        "import jax, assembly, tasks, sweeps.worker\n"
        "from assembly import find_module\n"
        "find_module(tasks, 'translation', 'Task', 'task')\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "print(jax.device_count())"
    )
    assert done.strip() == "3"


def run_python(text):
    order = [sys.executable, "-c", text]
    done = subprocess.run(order, capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout
