"""Metrics add up exactly, and progress survives in checkpoints."""

import dataclasses
import json
import math
import types

import jax.numpy as jnp
import pytest

from helpers.toy_run import settings
from training.loop import RunRecord
from training.metrics import TrainProgress, compute, merge


def test_a_mean_is_weighted_by_the_steps_own_weights():
    totals = merge({}, {"loss": (jnp.float32(6), jnp.float32(2)), "accuracy": (1, 4)})
    totals = merge(totals, {"loss": (jnp.float32(4), jnp.float32(3))})
    assert compute(totals) == {"loss": 2.0, "accuracy": 0.25}
    assert math.isnan(compute({"loss": (0.0, 0.0)})["loss"])


def step_metrics(loss, nonfinite=0.0):
    return {
        "loss": (jnp.float32(loss), jnp.float32(2)),
        "nonfinite_steps": (jnp.float32(nonfinite), jnp.ones(())),
    }


def test_waits_for_data_and_nonfinite_steps_are_in_the_line(monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 12.0])
    monkeypatch.setattr("training.loop.time.monotonic", lambda: next(clock))
    progress, lines = TrainProgress(), []
    writers = [types.SimpleNamespace(write=lambda *line: lines.append(line))]
    logger = RunRecord(settings(log_every=2), progress, writers, None)
    logger.add(1, step_metrics(8), 4.0, 0)
    logger.add(2, step_metrics(0, nonfinite=1.0), 1.0, 0)
    [(step, split, line)] = lines
    assert (step, split) == (2, "train")
    assert line["nonfinite_steps"] == 1
    assert line["data_wait_fraction"] == pytest.approx(0.5)
    assert line["seconds"] == 10.0
    assert progress.consecutive_nonfinite == [2]


def test_progress_survives_json_to_the_bit():
    progress = TrainProgress(
        totals={"loss": (0.1 + 0.2, 1 / 3)}, seconds=1e-17, consecutive_nonfinite=[3, 4]
    )
    stored = json.loads(json.dumps(dataclasses.asdict(progress)))
    again = TrainProgress(**stored)
    assert json.loads(json.dumps(dataclasses.asdict(again))) == stored
    assert again.totals["loss"][0] == 0.1 + 0.2


def test_only_a_better_score_ends_a_wait():
    progress = TrainProgress()
    nan = float("nan")
    waits = []
    for step, score in enumerate((nan, -5.0, -4.0, -4.0, nan, -3.0)):
        progress.record_validation(step, score)
        waits.append(progress.evals_since_best)
    assert waits == [1, 0, 0, 1, 2, 0]
    assert (progress.best_score, progress.last_validated) == (-3.0, 5)
