"""Tests of the expected best trial, against all subsets."""

import itertools

import numpy as np
import pytest

from analysis.compare.best_of_k import best_weights, expected_best
from utils.errors import UserError

SCORES = np.asarray([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0])


@pytest.mark.parametrize(("is_max", "best"), [(True, max), (False, min)])
def test_the_expected_best_is_the_mean_over_all_subsets(is_max, best):
    found = expected_best(SCORES, is_max=is_max)
    for k in range(1, 8):
        subsets = itertools.combinations(SCORES, k)
        expected = np.mean([best(subset) for subset in subsets])
        assert found.expected[k - 1] == pytest.approx(expected)
        assert found.low[k - 1] <= expected <= found.high[k - 1]


def test_the_estimate_is_unbiased_for_independent_trials():
    trials = np.random.default_rng(0).random((4000, 8))
    means = (np.sort(trials, axis=1) @ best_weights(8).T).mean(0)
    k = np.arange(1, 9)
    assert means == pytest.approx(k / (k + 1), abs=0.006)  # of uniform numbers


def test_weights_of_many_trials_are_probabilities():
    weights = best_weights(400)
    assert weights.sum(1) == pytest.approx(np.ones(400))
    assert weights.min() >= 0


def test_bands_cover_the_true_value():
    covered = 0
    for seed in range(100):
        found = expected_best(np.random.default_rng(seed).random(40), is_max=True)
        covered += found.low[3] <= 4 / 5 <= found.high[3]
    assert covered >= 86


def test_failed_trials_count_as_the_worst():
    scores = np.asarray([3.0, np.nan, 1.0, np.inf])
    found = expected_best(scores, is_max=False)
    assert found.expected[0] == pytest.approx((3 + 3 + 1 + 3) / 4)
    assert found.expected[-1] == 1
    with pytest.raises(UserError, match="No trial has a finite score"):
        expected_best(scores[1:2], is_max=True)


def test_dependent_trials_are_refused():
    with pytest.raises(UserError, match="TPE chooses each trial by the scores"):
        expected_best(SCORES, is_max=True, method="tpe")
