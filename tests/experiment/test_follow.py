"""An evaluator beside training scores each checkpoint and ends with the run."""

import dataclasses
import time
import types

import pytest

from configs import base
from experiment import follow
from helpers.entry_points import assert_refused, run
from training.checkpoint import Checkpoints
from training.metrics import TrainProgress
from training.run_dir import RunDirectory
from utils.locks import exclusive_lock, is_held


class FakeRun:
    """A run that another process trains, without a model."""

    def __init__(self, folder, patience=0):
        self.directory = RunDirectory(folder)
        cfg = base.get_config("rnn")
        cfg.keep.patience, cfg.max_nonfinite_steps = patience, 3
        self.directory.write_json("config.json", cfg.to_dict())
        self.directory.write_about({"steps": 6})
        self.checkpoints = Checkpoints(
            self.directory.checkpoints, self.directory.run_id, last=2
        )

    def save(self, step, **progress):
        document = dataclasses.asdict(TrainProgress(last_validated=step, **progress))
        self.checkpoints.save(step, {"state": {}}, document, 1.0)
        self.checkpoints.manager.wait_until_finished()


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A fake run, a list of scored steps, and one of what happens while one waits."""
    training, scored, events = FakeRun(tmp_path / "run"), [], []

    def evaluate(step, split):
        scored.append(step)
        return {"step": step}, training.directory.write_json(
            f"eval/{split}-{step}.json", {}
        )

    def wait(seconds):
        assert events, "nothing more happens"
        events.pop(0)()

    monkeypatch.setattr(follow, "open_run", lambda workdir, step, changes: int(step))
    monkeypatch.setattr(follow, "evaluate", evaluate)
    clock = types.SimpleNamespace(sleep=wait, monotonic=time.monotonic)
    monkeypatch.setattr(follow, "time", clock)
    yield training, scored, events
    training.checkpoints.close()


def test_each_checkpoint_is_scored_once_until_the_last_step(training):
    training, scored, events = training
    training.save(2)
    events += [lambda: None, lambda: training.save(4), lambda: training.save(6)]
    path = training.directory.path
    (path / "eval").mkdir()
    (path / "eval" / "test-2.json").write_text("{}")  # scored before
    found = [card for _, card, _ in follow.follow(str(path), "test")]
    assert scored == [4, 6]
    assert found == [{"step": 4}, {"step": 6}]
    assert not events


def test_a_checkpoint_that_is_deleted_before_its_turn_is_left_out(
    training, monkeypatch
):
    training, scored, _ = training
    training.save(2)
    training.save(4)

    def open_run(workdir, step, changes):
        if step == "2":
            training.checkpoints.manager.delete(2)
            training.save(6)
            raise FileNotFoundError(step)
        return int(step)

    monkeypatch.setattr(follow, "open_run", open_run)
    steps = follow.follow(str(training.directory.path), "test")
    monkeypatch.setattr(follow.time, "sleep", lambda seconds: None)
    assert [run for run, _, _ in steps] == [4, 6]
    assert scored == [4, 6]


def test_a_run_that_nobody_trains_is_followed_for_a_while_only(training, monkeypatch):
    training, scored, events = training
    training.save(2)
    path = training.directory.path
    monkeypatch.setattr(follow, "IDLE_SECONDS", 0.2)
    with exclusive_lock(path):
        assert is_held(path)
        steps = follow.follow(str(path), "test")
        next(steps)
        events += [lambda: time.sleep(0.3), lambda: training.save(4)]
        next(steps)
    assert not is_held(path)
    events += [lambda: time.sleep(0.3)] * 2
    assert [*steps] == []
    assert scored == [2, 4]


def test_the_time_of_an_evaluation_is_not_one_without_training(training, monkeypatch):
    training, scored, events = training
    training.save(2)
    monkeypatch.setattr(follow, "IDLE_SECONDS", 0.2)
    steps = follow.follow(str(training.directory.path), "test")
    next(steps)
    time.sleep(0.3)  # the evaluation
    events += [lambda: None, lambda: training.save(4)]
    next(steps)
    events += [lambda: time.sleep(0.3)] * 2
    assert [*steps] == []
    assert scored == [2, 4]


@pytest.mark.parametrize(
    ("progress", "has_ended"),
    [
        ({}, False),
        ({"evals_since_best": 2}, True),
        ({"consecutive_nonfinite": [2, 3, 4]}, True),
    ],
    ids=str,
)
def test_a_run_may_end_before_its_last_step(tmp_path, progress, has_ended):
    training = FakeRun(tmp_path, patience=2)
    assert not follow.has_ended(training.directory)
    training.save(4, **progress)
    training.checkpoints.close()
    assert follow.has_ended(training.directory) is has_ended


def test_one_checkpoint_and_all_exclude_each_other(tmp_path):
    flags = (f"--workdir={tmp_path}", "--follow", "--checkpoint=last")
    assert_refused(run("eval.py", *flags), "--checkpoint=last", "--follow")
