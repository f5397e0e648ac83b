"""Tests of performance profiles with ties and missing scores."""

import math

import pytest

from analysis.compare.page.profiles import performance_ratios, step_points

SCORES = {
    "rnn": [20.0, 4.0, math.nan, math.nan],
    "transformer": [30.0, 2.0, 8.0, math.nan],
    "transformer_xl": [30.0, 3.0, 4.0, math.nan],
}
SIGNS = [1, -1, 1, 1]


def test_ratios_are_factors_from_the_best_in_either_direction():
    ratios = performance_ratios(SCORES, SIGNS)
    assert ratios["rnn"] == pytest.approx([1.5, 2.0, math.inf, math.inf])
    assert ratios["transformer"] == pytest.approx([1.0, 1.0, 1.0, math.inf])
    assert ratios["transformer_xl"] == pytest.approx([1.0, 1.5, 2.0, math.inf])


def test_a_missing_score_does_not_depend_on_the_order():
    names = list(SCORES)
    for order in (names, names[::-1]):
        ratios = performance_ratios({name: SCORES[name] for name in order}, SIGNS)
        assert ratios == performance_ratios(SCORES, SIGNS)


def test_profiles_are_the_fractions_within_a_factor():
    for name, row in performance_ratios(SCORES, SIGNS).items():
        points = step_points(row, 2.5)
        for factor in (1.0, 1.2, 1.5, 1.9, 2.0, 2.4):
            expected = sum(ratio <= factor for ratio in row) / len(row)
            height = max(y for x, y in points if x <= factor)
            assert height == pytest.approx(expected), (name, factor)
