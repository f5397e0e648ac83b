"""Tests of costs until a target, with runs that do not reach it."""

import math

import numpy as np
import pytest

from analysis.compare.cost_to_target import cost_to_target


def curves(*costs):
    """Curves that reach a loss of 2 at these costs; of None, never, up to 100."""
    return [
        [(1, 9.0), (100, 8.0)] if cost is None else [(1, 9.0), (cost, 2.0), (120, 1.0)]
        for cost in costs
    ]


def test_the_first_evaluation_at_the_target_counts_in_both_directions():
    losses = [[(10, 5.0), (20, 2.9), (30, 3.5)], [(10, 3.0), (20, 2.0)]]
    found = cost_to_target(losses, 3.0, is_max=False)
    assert found.costs.tolist() == [20, 10]
    scores = [[(cost, -loss) for cost, loss in curve] for curve in losses]
    assert cost_to_target(scores, -3.0, is_max=True).costs.tolist() == [20, 10]


def test_without_censoring_the_median_is_the_middle_run():
    found = cost_to_target(curves(50, 30, 70), 2.0, is_max=False)
    assert found.median == np.median([50, 30, 70])
    assert str(found) == "50 (3 of 3 runs)"


def test_runs_that_do_not_reach_the_target_move_the_median_up():
    found = cost_to_target(curves(50, 30, 70, None, None), 2.0, is_max=False)
    assert found.median == 70
    assert found.is_observed.tolist() == [True, True, True, False, False]
    few = cost_to_target(curves(50, None, None), 2.0, is_max=False)
    assert few.median is None
    assert str(few) == "not reached (1 of 3 runs, most spent 100)"


def test_a_run_that_was_stopped_early_counts_until_then_only():
    short = [[(5, 9.0)], *curves(30, 50, 70)]
    # Product of Kaplan and Meier by hand: (1 - 1/3) (1 - 1/2) = 1/3 after 50.
    assert cost_to_target(short, 2.0, is_max=False).median == 50


def test_no_run_at_all_and_values_that_are_not_finite():
    never = [[(10, math.nan), (20, math.inf)]]
    for is_max in (True, False):
        assert cost_to_target(never, 2.0, is_max=is_max).median is None
    with pytest.raises(ValueError, match="needs a learning curve"):
        cost_to_target([[]], 2.0, is_max=True)
