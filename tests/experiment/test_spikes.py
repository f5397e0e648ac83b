"""A batch that makes the loss spike is marked and kept, left out, or ends the run."""

import json
import os
import signal

import numpy as np
import pytest

from analysis.diverge.records import differences, read_checkpoint
from analysis.step_replay.replay import Replay
from data.batching.stream import LMStreamBatches
from data.tokenizers.base import UNK
from experiment import train
from experiment.setup import TrainingSetup
from helpers.patches import steps_compiled_once
from helpers.text_runs import text_config
from training import spikes
from training.loop import ExitStatus

STEPS, SPIKE = 12, 8  # batch SPIKE - 1 is poisoned; checkpoints are at 3, 6, 9 and 12
CHANGES = {
    "model.dropout": 0.1,
    "every.log": 2,
    "every.eval": 0,
    "every.checkpoint": 3,
    "keep.last": 10,
    "spike_threshold": 4.0,
    "optim.lr": 5e-2,
    "optim.warmup": 0,
    "max_skips": 2,
    "data.batch_size": 8,
    "model.layers": 1,
}
READ_BATCH = LMStreamBatches.partial_batch


def poisoned(*numbers):
    """Returns a method whose batches of these numbers have labels that never occur."""

    def partial_batch(self, k, rows):
        batch = READ_BATCH(self, k, rows)
        if k in numbers:
            batch["labels"] = np.full_like(batch["labels"], UNK)
        return batch

    return partial_batch


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    with steps_compiled_once({}), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(spikes, "MIN_LOSSES", 4)
        monkeypatch.setattr(LMStreamBatches, "partial_batch", poisoned(SPIKE - 1))
        yield tmp_path_factory.mktemp("data")


def small_config(data_dir, action, **changes):
    changes = {"steps": STEPS, "on_spike": action, **CHANGES, **changes}
    return text_config(data_dir, "transformer_xl", **changes)


def rows(workdir, split):
    lines = map(json.loads, (workdir / "metrics.jsonl").open())
    return [row for row in lines if row["split"] == split]


def read_kept(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def skipped(data_dir, tmp_path_factory):
    """A run that left the poisoned batch out."""
    workdir = tmp_path_factory.mktemp("runs") / "skipped"
    assert train.train(small_config(data_dir, "skip"), workdir) is ExitStatus.FINISHED
    return workdir


def test_a_spike_is_marked_and_its_batch_is_kept(data_dir, tmp_path):
    cfg = small_config(data_dir, "keep")
    assert train.train(cfg, tmp_path / "keep") is ExitStatus.FINISHED
    (row,) = rows(tmp_path / "keep", "spike")
    assert (row["step"], row["batch"]) == (SPIKE, SPIKE - 1)
    assert row["loss"] > row["limit"]
    kept = read_kept(tmp_path / "keep" / "replay" / f"spike-{SPIKE}.npz")
    assert (kept[f"{SPIKE}/labels"] == UNK).all()
    cfg = small_config(data_dir, "off")
    assert train.train(cfg, tmp_path / "off") is ExitStatus.FINISHED
    assert rows(tmp_path / "off", "spike") == []
    found = (read_checkpoint(tmp_path / name, STEPS) for name in ("keep", "off"))
    for (name, array), other in zip(*(x.items() for x in found), strict=True):
        if name not in ("recent_losses", "is_spike"):
            np.testing.assert_array_equal(array, other[1], err_msg=name)


def test_a_skipped_batch_might_as_well_not_exist(skipped, data_dir, tmp_path):
    def others(self, k, rows):
        return READ_BATCH(self, k + (k >= SPIKE - 1), rows)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(LMStreamBatches, "partial_batch", others)
        cfg = small_config(data_dir, "skip")
        assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    (row,) = rows(skipped, "spike")
    assert (row["step"], row["batch"], row["skips"]) == (SPIKE, SPIKE - 1, 1)
    found = differences(skipped, tmp_path / "run")
    assert {
        line for line in found if "spike" not in line and "skips" not in line
    } == set()
    kept = read_kept(skipped / "replay" / "skipped" / f"{SPIKE}-{SPIKE - 1}.npz")
    assert (kept[f"{SPIKE}/labels"] == UNK).all()


class Killed(Exception):
    """Stands for SIGKILL: nothing after it is done."""


def interrupting(step_call, act):
    """Returns a patch of `compiled_step`, whose step acts in one of its calls."""
    compile_step, calls = TrainingSetup.compiled_step, []

    def patched(*args):
        step = compile_step(*args)

        def counted(*inputs):
            calls.append(1)
            if len(calls) == step_call:
                act()
            return step(*inputs)

        return counted

    return patched


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def kill():
    raise Killed


# Calls of the step: 1 to 9, of which 8 spikes and 9 is in flight; then 7, 8, ...
@pytest.mark.parametrize(
    ("call", "act"),
    [
        pytest.param(call, act, marks=[pytest.mark.slow] * (call != fast))
        for act, fast in ((terminate, 9), (kill, None))
        for call in range(8, 14)
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    skipped, data_dir, tmp_path, monkeypatch, call, act
):
    cfg = small_config(data_dir, "skip")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSetup, "compiled_step", interrupting(call, act))
        if act is kill:
            with pytest.raises(Killed):
                train.train(cfg, tmp_path / "run")
        else:
            assert train.train(cfg, tmp_path / "run") is ExitStatus.STOPPED
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    assert differences(tmp_path / "run", skipped) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["resume", "open_record"])
def test_a_run_killed_while_it_rewinds_ends_as_if_it_had_not_been(
    skipped, data_dir, tmp_path, monkeypatch, moment
):
    cfg = small_config(data_dir, "skip")
    owner = train if moment == "resume" else TrainingSetup
    function, calls = getattr(owner, moment), []

    def killed_later(*args, **options):
        found = function(*args, **options)
        calls.append(1)
        if len(calls) == 2:  # the first is the start of the run
            raise Killed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, killed_later)
        with pytest.raises(Killed):
            train.train(cfg, tmp_path / "run")
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    assert differences(tmp_path / "run", skipped) == []


def test_a_run_that_stops_at_a_spike_saves_nothing_after_it(data_dir, tmp_path):
    cfg = small_config(data_dir, "stop")
    assert train.train(cfg, tmp_path) is ExitStatus.SPIKED
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"3", "6"}
    assert [row["step"] for row in rows(tmp_path, "spike")] == [SPIKE]
    assert (tmp_path / "replay" / f"spike-{SPIKE}.npz").exists()
    cfg = small_config(data_dir, "skip")
    assert train.train(cfg, tmp_path) is ExitStatus.FINISHED


def test_too_many_skips_in_a_row_end_the_run(data_dir, tmp_path, monkeypatch):
    numbers = range(SPIKE - 1, SPIKE + 5)
    monkeypatch.setattr(LMStreamBatches, "partial_batch", poisoned(*numbers))
    cfg = small_config(data_dir, "skip")
    assert train.train(cfg, tmp_path) is ExitStatus.SPIKED
    names = {path.name for path in (tmp_path / "replay" / "skipped").iterdir()}
    assert names == {f"{SPIKE}-{SPIKE + k}.npz" for k in (-1, 0, 1)}


@pytest.mark.slow
def test_a_spike_before_the_first_checkpoint_goes_back_to_the_start(
    data_dir, tmp_path, monkeypatch
):
    changes = {"every.checkpoint": 0}
    cfg = small_config(data_dir, "skip", **changes)
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED

    def others(self, k, rows):
        return READ_BATCH(self, k + (k >= SPIKE - 1), rows)

    monkeypatch.setattr(LMStreamBatches, "partial_batch", others)
    assert train.train(cfg, tmp_path / "other") is ExitStatus.FINISHED
    found = differences(tmp_path / "run", tmp_path / "other")
    assert {
        line for line in found if "spike" not in line and "skips" not in line
    } == set()


def test_a_replay_leaves_the_same_batch_out(skipped):
    replay = Replay.open(str(skipped))
    batch = replay.host_batch(SPIKE)
    assert not (batch["labels"] == UNK).all()
    expected = replay.setup.batches.batches[SPIKE]  # number SPIKE - 1 is poisoned
    np.testing.assert_array_equal(batch["labels"], expected["labels"])
