"""Spikes of the loss: which are found, how many by chance, and what follows."""

import math

import numpy as np
import pytest

from training.metrics import TrainProgress
from training.spikes import (
    MIN_LOSSES,
    WINDOW,
    SpikeMonitor,
    count_in_a_row,
    spike_limit,
)

THRESHOLD = 10.0  # the default of configs/base.py
LOSSES = {  # n losses around 4
    "normal": lambda random, n: 4 + 0.1 * random.normal(size=n),
    "laplace": lambda random, n: 4 + 0.1 * random.laplace(size=n),
    "student": lambda random, n: 4 + 0.1 * random.standard_t(5, size=n),
    "falling": lambda random, n: (
        3 + 7 * np.exp(-np.arange(n) / 2000) + 0.1 * random.normal(size=n)
    ),
}
STATED = {"normal": 1e-6, "laplace": 6e-5, "student": 1e-4, "falling": 1e-6}


def false_alarms(losses, window=WINDOW):
    """The fraction of losses that are spikes."""
    before = np.lib.stride_tricks.sliding_window_view(losses[:-1], window)
    parts = zip(
        *(np.array_split(x, 50) for x in (before, losses[window:])), strict=True
    )
    found = sum(int((now > spike_limit(past, THRESHOLD)).sum()) for past, now in parts)
    return found / len(before)


@pytest.mark.parametrize("kind", LOSSES)
def test_false_alarms_are_as_rare_as_stated(kind):
    losses = LOSSES[kind](np.random.default_rng(0), 40_000)
    assert false_alarms(losses) <= 3 * STATED[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_false_alarms_of_a_million_losses_are_as_rare_as_stated(kind):
    losses = LOSSES[kind](np.random.default_rng(1), 1_000_000)
    assert false_alarms(losses) <= STATED[kind]


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_far_above_those_before_is_a_spike_and_one_far_below_is_not(kind):
    losses = LOSSES[kind](np.random.default_rng(2), 20_000)[-WINDOW:]
    limit = spike_limit(losses, THRESHOLD)
    assert np.median(losses) + 0.5 < limit < np.median(losses) + 2.5
    losses[:20] = 100.0  # earlier spikes hide no later one
    assert spike_limit(losses, THRESHOLD) < np.median(losses) + 3.5


def test_without_enough_losses_none_is_a_spike():
    assert spike_limit(np.ones(MIN_LOSSES - 1), THRESHOLD) == math.inf
    assert 1 < spike_limit(np.ones(MIN_LOSSES), THRESHOLD) < 1.1


class Record:
    """Progress and log of a run; its reports are of spikes."""

    def __init__(self, action, max_skips=2):
        self.progress, self.is_halted, self.is_rewound = TrainProgress(), False, False
        self.rows, self.reports = [], []

        def report(step, spike, action):
            self.reports.append((step, action))

        self.monitor = SpikeMonitor(action, 10.0, max_skips, lambda k: k - 1, report)

    def write(self, step, split, metrics):
        self.rows.append((step, split, metrics))

    def add(self, step, loss):
        weight = 2.0 * math.isfinite(loss)
        value = loss * weight if weight else 0.0
        self.monitor.check(self, step, {"loss": (value, weight)})


def record_with_losses(action, **options):
    record = Record(action, **options)
    for step in range(1, WINDOW + 1):
        record.add(step, 3 + 0.1 * math.sin(step))
    assert record.rows == record.reports == []
    return record


def test_each_spike_is_marked_and_of_several_in_a_row_one_batch_is_kept():
    record = record_with_losses("keep")
    for step, loss in enumerate([9.0, 9.0, 3.0, math.nan, 9.0], start=WINDOW + 1):
        record.add(step, loss)
    assert [step - WINDOW for step, _, _ in record.rows] == [1, 2, 5]
    assert [step - WINDOW for step, _ in record.reports] == [1, 5]
    step, split, metrics = record.rows[0]
    assert (split, metrics["loss"], metrics["batch"]) == ("spike", 9.0, WINDOW)
    assert 3.5 < metrics["limit"] < 5
    assert len(record.progress.recent_losses) == WINDOW
    assert not record.is_halted


def test_a_level_that_stays_higher_is_the_new_normal():
    record = record_with_losses("keep")
    for step in range(WINDOW + 1, 2 * WINDOW):
        record.add(step, 9 + 0.1 * math.sin(step))
    assert WINDOW / 4 < len(record.rows) < WINDOW * 3 / 4


def test_a_skip_rewinds_and_too_many_in_a_row_do_not():
    record = record_with_losses("skip", max_skips=2)
    for count in (1, 2):
        record.add(WINDOW + 1, 9.0)
        assert record.is_halted
        assert record.is_rewound
        assert len(record.progress.skips) == count
        record.is_halted = record.is_rewound = False
    record.add(WINDOW + 1, 9.0)
    assert record.is_halted
    assert not record.is_rewound
    assert [action for _, action in record.reports] == ["skip", "skip", "stop"]
    assert 9.0 not in record.progress.recent_losses


@pytest.mark.parametrize(
    ("steps", "count"), [([], 0), ([5], 1), ([5, 5, 6], 3), ([5, 7], 1), ([5, 7, 7], 2)]
)
def test_skips_in_a_row_are_at_one_step_or_at_consecutive_ones(steps, count):
    assert count_in_a_row([{"step": step} for step in steps]) == count
