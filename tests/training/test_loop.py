"""However a run is interrupted, it ends as if it had not been."""

import contextlib
import os
import signal

import jax
import numpy as np
import pytest

from helpers.toy_run import Toy
from training.checkpoint import Checkpoints
from training.loop import ExitStatus
from training.signals import StopRequested, raise_on_signal


class Killed(Exception):
    """Stands for SIGKILL: nothing after it is done."""


def kill():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    toy = Toy(tmp_path_factory.mktemp("whole"))
    assert toy.go()[1] is ExitStatus.FINISHED
    return toy.left()


MOMENTS = [
    *(("step", k) for k in (1, 5, 6, 11)),
    *(("batch", k) for k in (0, 5)),
    *(("validation", k) for k in (9, 12)),
]


def moments(*fast):
    """Returns all moments; those that are not `fast` are slow."""
    return [
        pytest.param(x, marks=[pytest.mark.slow] * (x not in fast)) for x in MOMENTS
    ]


@pytest.mark.parametrize(
    "moment",
    moments(("step", 1), ("step", 6), ("validation", 12)),
    ids=str,
)
def test_a_run_killed_at_any_moment_leaves_what_an_unharmed_one_leaves(
    tmp_path, whole, moment
):
    toy = Toy(tmp_path)
    with pytest.raises(Killed):
        toy.go(moment, kill)
    assert toy.go()[1] is ExitStatus.FINISHED
    assert toy.left() == whole


@pytest.mark.parametrize(
    "moment",
    moments(("step", 5), ("batch", 0), ("validation", 9)),
    ids=str,
)
def test_a_run_told_to_stop_saves_and_goes_on_as_if_it_had_not(tmp_path, whole, moment):
    toy = Toy(tmp_path)
    state, ending = toy.go(moment, terminate)
    assert ending is ExitStatus.STOPPED
    assert int(state.step) in {0, *toy.stored()}  # before a step nothing is lost
    assert toy.go()[1] is ExitStatus.FINISHED
    # It may have kept a checkpoint more at the step it was stopped at.
    left = toy.left()
    assert left["metrics"] == whole["metrics"]
    assert left["events"] == whole["events"]
    shared = left["checkpoints"].keys() & whole["checkpoints"].keys()
    assert 12 in shared
    for step in shared:
        assert left["checkpoints"][step] == whole["checkpoints"][step]


def drop_carry(content, progress, like):
    return {**content, "carry": like["carry"]}, progress


def drop_mean(content, progress, like):
    state = content["state"].replace(ema=like["state"].ema)
    return {**content, "state": state}, progress


def drop_patience(content, progress, like):
    return content, {**progress, "best_score": None, "evals_since_best": 0}


def drop_totals(content, progress, like):
    return content, {**progress, "totals": {}}


@pytest.mark.parametrize("forget", [drop_carry, drop_mean, drop_patience, drop_totals])
def test_whatever_a_checkpoint_forgets_is_missed(tmp_path, whole, monkeypatch, forget):
    toy = Toy(tmp_path)
    with pytest.raises(Killed):
        toy.go(("step", 9), kill)
    restore = Checkpoints.restore

    def forgetful(self, step, like):
        return forget(*restore(self, step, like), like)

    monkeypatch.setattr(Checkpoints, "restore", forgetful)
    assert toy.go()[1] is ExitStatus.FINISHED
    assert toy.left() != whole


def test_a_stop_does_not_wait_for_a_validation(tmp_path):
    toy = Toy(tmp_path)
    assert toy.go(("validation", 3), terminate)[1] is ExitStatus.STOPPED
    assert [row["split"] for row in toy.lines()] == ["train"]
    assert toy.stored()[3][1]["last_validated"] == 0


def test_a_run_that_is_finished_stays_as_it_is(tmp_path):
    toy = Toy(tmp_path)
    toy.go()
    left = toy.left()
    assert toy.go(("step", 12), kill)[1] is ExitStatus.FINISHED
    assert toy.left() == left


def test_the_log_does_not_depend_on_when_a_run_was_stopped(whole):
    steps = [row["step"] for row in whole["metrics"] if row["split"] == "train"]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in whole["metrics"] if row["split"] != "train"] == [
        3, 6, 9, 12,
    ]  # fmt: skip
    assert {step for step, _, _ in whole["events"]} == {2, 3, 4, 6, 8, 9, 10, 12}


def test_training_ends_when_no_validation_is_better_for_long_enough(tmp_path):
    scores = (5.0, 4.0, 4.5, 4.2, 1.0)
    toy = Toy(tmp_path, steps=30, patience=2, scores=scores)
    state, ending = toy.go()
    assert (int(state.step), ending) == (12, ExitStatus.FINISHED)
    assert sorted(toy.stored()) == [6, 10, 12]  # the best, and the newest two
    assert toy.go(("step", 12), kill)[1] is ExitStatus.FINISHED


def test_patience_is_counted_on_after_a_stop(tmp_path):
    toy = Toy(tmp_path, steps=30, patience=2, scores=(5.0, 4.0, 4.5, 4.2, 1.0))
    with pytest.raises(Killed):
        toy.go(("step", 10), kill)
    state, ending = toy.go()
    assert (int(state.step), ending) == (12, ExitStatus.FINISHED)


def test_a_batch_without_a_finite_loss_changes_nothing_and_is_counted(tmp_path):
    toy = Toy(tmp_path, steps=6, broken=(4,))
    state, ending = toy.go()
    assert ending is ExitStatus.FINISHED
    rows = [row for row in toy.lines() if row["split"] == "train"]
    assert [row["nonfinite_steps"] for row in rows] == [0, 0, 1]
    assert all(np.isfinite(row["loss"]) for row in rows)
    before = Toy(tmp_path / "before", steps=4)
    before.go()
    parameters = jax.device_get((state.params, state.opt_state, state.ema))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters))


def test_too_many_in_a_row_end_the_run_with_their_numbers(tmp_path):
    toy = Toy(tmp_path, steps=30, broken=(2, 5, 6, 7, 8, 9))
    state, ending = toy.go()
    assert ending is ExitStatus.NOT_FINITE
    # One more step was under way when the third was known to be skipped.
    assert int(state.step) == 9
    assert toy.stored()[9][1]["consecutive_nonfinite"] == [6, 7, 8, 9]
    assert toy.stored()[9][1]["nonfinite_steps"] == 5


@pytest.mark.parametrize(
    "stopped",
    [pytest.param(k, marks=[pytest.mark.slow] * (k != 6)) for k in (5, 6, 7)],
)
def test_skipped_steps_are_counted_on_after_a_stop(tmp_path, stopped):
    whole = Toy(
        tmp_path / "whole", steps=30, broken=(5, 6, 7, 8, 9, 10), max_nonfinite_steps=5
    )
    state, ending = whole.go()
    assert (int(state.step), ending) == (11, ExitStatus.NOT_FINITE)
    toy = Toy(tmp_path / "toy", steps=30, broken=whole.broken, max_nonfinite_steps=5)
    assert toy.go(("step", stopped), terminate)[1] is ExitStatus.STOPPED
    state, ending = toy.go()
    assert (int(state.step), ending) == (11, ExitStatus.NOT_FINITE)


@pytest.mark.parametrize(
    "first",  # an even and an odd step: one of them is logged
    [pytest.param(k, marks=[pytest.mark.slow] * (k < 6)) for k in range(4, 8)],
)
def test_so_many_end_the_run_also_if_the_step_under_way_is_finite(tmp_path, first):
    broken = tuple(range(first, first + 3))
    toy = Toy(tmp_path, steps=30, broken=broken, max_nonfinite_steps=3)
    state, ending = toy.go()
    assert ending is ExitStatus.NOT_FINITE
    assert int(state.step) == first + 4
    state, ending = toy.go()  # another chance
    assert (int(state.step), ending) == (30, ExitStatus.FINISHED)


def test_a_run_whose_parameters_are_not_finite_never_finishes(tmp_path):
    toy = Toy(tmp_path, steps=2, start=np.nan)  # fewer steps than end a run
    for _ in range(2):  # nor does the same command once more
        assert toy.go()[1] is ExitStatus.NOT_FINITE


def test_a_run_that_diverged_at_its_last_step_has_no_other_chance(tmp_path):
    toy = Toy(tmp_path, steps=6, broken=(3, 4, 5))
    for _ in range(2):
        assert toy.go()[1] is ExitStatus.NOT_FINITE
    left = Toy(tmp_path / "finite", steps=6, broken=(4, 5))
    assert left.go()[1] is ExitStatus.FINISHED


def test_a_stop_is_not_swallowed_by_what_catches_exceptions():
    def importing():
        with contextlib.suppress(Exception):
            terminate()

    with pytest.raises(StopRequested), raise_on_signal():
        importing()


def test_checkpoints_by_the_clock_change_no_number(tmp_path, whole):
    toy = Toy(tmp_path, save_minutes=1e-9)
    with pytest.raises(Killed):
        toy.go(("step", 8), kill)
    assert max(toy.stored()) == 8  # instead of 6
    assert toy.go()[1] is ExitStatus.FINISHED
    assert toy.lines() == whole["metrics"]
    assert toy.stored()[12] == whole["checkpoints"][12]


def test_memory_of_a_validation_is_returned_before_the_next_step(tmp_path, monkeypatch):
    events, toy = [], Toy(tmp_path)
    monkeypatch.setattr(
        "training.loop.return_unused_memory", lambda: events.append("returned")
    )
    toy.go(at=("validation", 3), act=lambda: events.append("validated"))
    assert events[:2] == ["validated", "returned"]
