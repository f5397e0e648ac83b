"""Faults planted in one of two runs are named; equal runs and rounding are, too."""

import functools
import json
import shutil

import pytest

from analysis.diverge.compare import compare_runs
from analysis.diverge.programs import compare_programs
from analysis.diverge.report import format_report
from analysis.diverge.verdict import judge
from analysis.step_replay.program import step_program
from analysis.step_replay.replay import Replay
from experiment.train import train
from helpers.entry_points import assert_refused, run, start
from helpers.patches import (
    flipped_bit,
    products_in_bfloat16,
    steps_compiled_once,
    unscaled_head,
)
from helpers.small_runs import config
from helpers.text_runs import WORDS, text_config, train_text
from sweeps import population
from training.loop import ExitStatus
from training.observe.fingerprint import FILE
from utils.errors import UserError

slow = pytest.mark.slow
COMMAND = "analysis/diverge/__main__.py"
STEPS = 20
EVERY = {"steps": STEPS, "every.checkpoint": 10, "every.fingerprint": 1}
EVERY |= {"model.layers": 1, "every.eval": 0}
SCALE = "stack/final_norm/norm/scale"


STEP = {}  # of the runs of this config and their replays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all runs, with a run without a fault."""
    folder = tmp_path_factory.mktemp("runs")
    with steps_compiled_once(STEP):
        train_text(folder, "base", **EVERY)
    return folder


@pytest.fixture
def compiled_once(folder):
    """Does not compile the step again, in a test whose faults are not in the step."""
    with steps_compiled_once(STEP):
        yield


def trained(folder, name, **changes):
    if not (folder / name).exists():
        train_text(folder, name, **{**EVERY, **changes})
    return folder / name


def verdict(*sides):
    names = tuple(map(str, sides))
    evidence, notes = compare_runs(*names, 100)
    text = format_report(evidence, names, notes)
    found = judge(evidence)
    assert text.splitlines()[-1] == f"verdict: {found}"
    print(text)
    return found


@pytest.fixture(scope="module")
def flipped(folder):
    """A run in which a bit of a parameter flips after step 17."""
    with flipped_bit(17, SCALE, (4,), 27), steps_compiled_once(STEP):
        return trained(folder, "flipped")


@pytest.mark.usefixtures("compiled_once")
def test_a_flipped_bit_is_found_by_fingerprints(folder, flipped):
    found = verdict(folder / "base", flipped)
    assert found.kind == "different parameters"
    assert "changed outside of the program, after step 17" in found.reason
    assert f"bit 27 of params/{SCALE}[4]" in found.reason
    assert "the records of A, not of B" in found.reason
    assert "the records of B, not of A" in verdict(flipped, folder / "base").reason


@pytest.mark.usefixtures("compiled_once")
def test_a_side_may_be_a_file_of_fingerprints(folder, flipped, tmp_path):
    shutil.copy(flipped / FILE, tmp_path / "elsewhere.jsonl")
    found = verdict(folder / "base", tmp_path / "elsewhere.jsonl")
    assert found.kind == "different parameters"
    assert f"bit 27 of params/{SCALE}[4]" in found.reason
    files = folder / "base" / FILE, tmp_path / "elsewhere.jsonl"
    assert f"bit 27 of params/{SCALE}[4]" in verdict(*files).reason


@slow
def test_a_flipped_bit_is_found_by_checkpoints_and_the_log(folder):
    plain = trained(folder, "plain", **{"every.fingerprint": 0})
    with flipped_bit(17, SCALE, (4,), 27):
        other = trained(folder, "flipped plain", **{"every.fingerprint": 0})
    found = verdict(plain, other)
    assert found.kind == "different parameters"
    assert "changed outside of the program, in step 18" in found.reason


def test_the_command_prints_that_equal_runs_are_equal(folder):
    shutil.copytree(folder / "base", folder / "copy")
    done = run(COMMAND, folder / "base", folder / "copy")
    assert done.returncode == 0, done.stderr.decode()
    last = done.stdout.decode().splitlines()[-1]
    assert (
        last == "verdict: equal: all arrays and logged values are equal up to step 20"
    )


def test_what_cannot_be_compared_is_refused_in_one_line(folder, flipped, tmp_path):
    base = folder / "base"
    assert_refused(run(COMMAND, base, tmp_path / "none"), "no run in")
    (tmp_path / "text").write_text("text")
    assert_refused(run(COMMAND, base, tmp_path / "text"), "has no fingerprints")
    done = run(COMMAND, base, flipped, "--max_replay_steps=3")
    words = ("differ at step 18", "7 steps after checkpoint 10", "about")
    assert_refused(done, *words, "--max_replay_steps=7")


def test_runs_of_different_architectures_are_refused(folder, tmp_path):
    header, *rows = (folder / "base" / FILE).read_text().splitlines()
    header = json.loads(header)
    header["arrays"]["params/head/bias"] = [999]
    header["config"]["model"]["name"] = "rnn"
    (tmp_path / FILE).write_text("\n".join([json.dumps(header), *rows, ""]))
    with pytest.raises(UserError, match=r"different architectures.*rnn.*head/bias"):
        compare_runs(str(folder / "base"), str(tmp_path / FILE), 100)


@slow
def test_a_scale_missing_in_one_head_is_named(folder):
    replay = Replay.open(str(folder / "base"))
    setup, inputs = replay.on_one_device(replay.seek(1))
    first = step_program(setup, inputs)
    with unscaled_head(1):
        second = step_program(setup, inputs)
    found = compare_programs(first, second)
    assert "self_attention" in found.split[1]
    assert found.modules[0].name.startswith("stack/layers_0/self_attention")
    assert found.gradient_distance > 1e-3


PAIRS = {
    "data.name": "parallel_text/en-de",
    "data.vocab_size": 60,
    "data.tokens_per_batch": 64,
    "decode.max_length": 4,
    "model.width": 8,
    "every.log": 1,
    "every.eval": 4,
    "every.checkpoint": 4,
}
FAULTS = {
    "unscaled head": functools.partial(unscaled_head, 1),
    "products in bfloat16": products_in_bfloat16,
}


@slow
@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"label_smoothing": 0.1}, "different program", "label_smoothing is 0.0 in A"),
        ({"model.dtype": "bfloat16"}, "different program", "bfloat16"),
        ({"optim.b2": 0.99}, "different program", "constant 0.02 in A and 0.01 in B"),
        ({"seed": 1}, "different random numbers", "first parameters"),
        ({"grad_accum_steps": 2}, "rounding", "grad_accum_steps"),
    ],
)
def test_a_changed_key_is_named(folder, changes, kind, word):
    (key,) = changes
    found = verdict(folder / "base", trained(folder, key, **changes))
    assert found.kind == kind
    assert word in found.reason


@slow
def test_dropout_with_another_seed_is_one_of_random_numbers(folder):
    options = {"init_from": str(folder / "base"), "model.dropout": 0.1}
    first = trained(folder, "seed 0", **options)
    found = verdict(first, trained(folder, "seed 1", **options, seed=1))
    assert found.kind == "different random numbers"
    assert "step 1 are equal" in found.reason
    assert "(0 and 1)" in found.reason


@slow
def test_another_order_of_the_data_is_one_of_data(folder):
    first, second = (
        trained_pairs(folder, f"order {seed}", **{"data.seed": seed}) for seed in (0, 1)
    )
    found = verdict(first, second)
    assert found.kind == "different data"
    assert "the batch of step 1" in found.reason
    assert "data.seed is 0 in A and 1 in B" in found.reason


def trained_pairs(folder, name, **changes):
    """Trains a run of translation, whose pairs are shuffled."""
    (folder / "pairs").mkdir(exist_ok=True)
    for split, size in {"train": 40, "valid": 4, "test": 4}.items():
        lines = [f"{WORDS[k % 10]} {WORDS[k % 7]}\n" for k in range(size)]
        (folder / f"pairs/{split}.en").write_text("".join(lines))
        (folder / f"pairs/{split}.de").write_text("".join(lines).upper())
    options = {"data.source_dir": str(folder / "pairs"), **PAIRS, **changes}
    cfg = config("cldr", "rnn", folder / "data", steps=4, **options)
    assert train(cfg, str(folder / name)) is ExitStatus.FINISHED
    return folder / name


@slow
def test_another_origin_is_one_of_parameters(folder, flipped):
    first, second = (
        trained(folder, f"from {origin.name}", init_from=str(origin))
        for origin in (folder / "base", flipped)
    )
    found = verdict(first, second)
    assert found.kind == "different parameters"
    assert "init_from" in found.reason


@slow
def test_equal_runs_are_equal(folder):
    again = trained(folder, "again", **{"every.fingerprint": 5})
    assert verdict(folder / "base", again).kind == "equal"


@slow
@pytest.mark.parametrize("name", ["unscaled head", "products in bfloat16"])
def test_a_run_of_another_program_is_told_from_rounding(folder, name):
    with FAULTS[name]():
        other = trained(folder, name)
    found = verdict(folder / "base", other)
    assert found.kind == "different program"
    assert "after step 1" in found.reason
    assert "opt_state" in found.reason
    assert "the records of A, not of B" in found.reason


@slow
def test_a_trial_of_a_population_is_a_run(folder):
    configs = [text_config(folder, **EVERY, **{"optim.lr": lr}) for lr in (3e-3, 6e-3)]
    workdirs = [folder / "trial 0", folder / "trial 1"]
    population.train(configs, workdirs)
    found = verdict(folder / "base", workdirs[1])
    assert found.kind == "different program"
    assert "optim.lr is 0.003 in A and 0.006 in B" in found.reason
    assert verdict(folder / "base", workdirs[0]).kind in ("equal", "rounding")


def train_process(folder, name, xla_flags, **changes):
    """Trains in a process of its own, with flags of the compiler."""
    cfg = text_config(folder, **EVERY, **changes)
    file = folder / f"{name}.py"
    file.write_text(
        "import json\nfrom configs import base\n\n\ndef get_config(name):\n"
        "    cfg = base.get_config(name)\n"
        f"    cfg.update(json.loads({cfg.to_json_best_effort()!r}))\n    return cfg\n"
    )
    flags = f"--config={file}:transformer", f"--workdir={folder / name}"
    optimized = {"XLA_FLAGS": xla_flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    done = start("train.py", *flags, **optimized)
    assert done.returncode == 0, done.stderr.decode()
    return folder / name


@slow
@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--xla_cpu_multi_thread_eigen=false", {}),
        ("--xla_force_host_platform_device_count=2", {}),
        ("--xla_force_host_platform_device_count=2", {"parallel.mode": "pmap"}),
    ],
    ids=["threads", "mesh", "pmap"],
)
def test_other_threads_and_devices_differ_by_rounding(folder, request, flags, changes):
    first = folder / "one device"
    if not first.exists():
        train_process(folder, first.name, "")
    second = train_process(folder, request.node.callspec.id, flags, **changes)
    found = verdict(first, second)
    assert found.kind == "rounding"


@pytest.mark.parametrize("flags", [("runs/a",), ("a", "b", "--max_replay_steps=x")])
def test_wrong_options_are_one_line(flags):
    assert_refused(run(COMMAND, *flags), "argument")


@pytest.mark.usefixtures("compiled_once")
def test_data_that_have_moved_are_found(folder, flipped, tmp_path):
    moved = tmp_path / "moved"
    names = [
        str(shutil.copytree(run, moved / run.name))
        for run in (folder / "base", flipped)
    ]
    for name in names:
        places = json.loads((moved / name / "places.json").read_text())
        gone = {key: ["nowhere"] if paths else [] for key, paths in places.items()}
        (moved / name / "places.json").write_text(json.dumps(gone))
    here = json.loads((folder / "base" / "config.json").read_text())["data"]
    given = {key: here[key] for key in ("dir", "source_dir") if here[key]}
    _, notes = compare_runs(*names, 100, given)
    assert not notes
    _, notes = compare_runs(*names, 100)
    assert "is not replayed" in notes[0]
