"""Tests of predicted power and sizes, against simulated comparisons."""

import numpy as np
import pytest
from scipy import stats

from analysis.compare.calibration import NUM_SYSTEMS, Deviations, simulate
from analysis.compare.difference import (
    VarianceParts,
    estimate_difference,
    variance_parts,
)
from analysis.compare.power import level_of_one, predict_power, required_sizes

NUM_BLOCKS = 60


def true_parts(deviations, seeds, num_blocks=NUM_BLOCKS):
    """The parts that estimates of simulated systems approach."""
    own = deviations.own**2
    total = deviations.training**2 + own
    shared = 2 * deviations.system**2
    return VarianceParts((total, total), (own, own), shared, (seeds, seeds), num_blocks)


@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
@pytest.mark.parametrize("difference", [0.4, 0.8])
@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize(
    "deviations",
    [Deviations(0.3, 0.07, 0.05), Deviations(0.17, 0.21, 0.25)],
    ids=["seeds", "sentences"],
)
def test_predicted_power_is_that_of_simulated_comparisons(
    deviations, seeds, difference, level
):
    scores, covariance = simulate(2000, seeds, deviations, NUM_BLOCKS)
    runs = np.arange(NUM_SYSTEMS * seeds)[: 2 * seeds]
    scores = scores[:, runs] + np.where(runs < seeds, difference, 0.0)
    parts = variance_parts(scores, covariance[:, : 2 * seeds, : 2 * seeds], seeds, 60)
    found = estimate_difference(scores, seeds, parts)
    simulated = np.mean((found.p <= level) & (found.value > 0))
    predicted = predict_power(difference, true_parts(deviations, seeds), level)
    assert predicted == pytest.approx(simulated, abs=0.05)


def test_power_without_variance_over_sentences_is_that_of_the_t_test():
    # With many seeds Welch's test is Student's, whose power is known.
    parts = VarianceParts((1.0, 1.0), (0.0, 0.0), 0.0, (20, 20), 100)
    noncentrality = 0.8 / np.sqrt(2 / 20)
    expected = stats.nct.sf(stats.t.isf(0.025, 38), 38, noncentrality)
    assert predict_power(0.8, parts) == pytest.approx(expected, abs=0.002)


def test_required_seeds_are_the_fewest_with_the_power():
    parts = VarianceParts((0.09, 0.09), (0.0, 0.0), 0.01, (3, 3), 1000)
    needed = required_sizes(0.5, parts, num_comparisons=3)
    assert needed.level == level_of_one(3) == pytest.approx(0.05 / 3)
    for seeds, is_enough in ((needed.seeds, True), (needed.seeds - 1, False)):
        power = predict_power(0.5, parts.with_sizes((seeds, seeds)), needed.level)
        assert (power >= 0.8) == is_enough
    # The normal approximation: (z_0.992 + z_0.8)^2 V(n) = d^2.
    factor = (stats.norm.isf(0.05 / 6) + stats.norm.isf(0.2)) ** 2
    assert needed.seeds == pytest.approx(0.18 / (0.25 / factor - 0.01), abs=3)


def test_more_sentences_are_asked_for_where_seeds_do_not_help():
    parts = VarianceParts((0.09, 0.09), (0.04, 0.04), 0.2, (5, 5), 1000)
    needed = required_sizes(0.5, parts)
    assert needed.seeds is None
    assert predict_power(0.5, parts.with_sizes((10**6,) * 2)) < 0.8
    sizes = (needed.seeds_for_blocks,) * 2
    assert needed.seeds_for_blocks >= 5
    for blocks, is_enough in ((needed.blocks, True), (needed.blocks - 1, False)):
        power = predict_power(0.5, parts.with_sizes(sizes, blocks))
        assert (power >= 0.8) == is_enough


def test_no_sizes_do_for_a_difference_of_zero_and_one_seed_is_refused():
    parts = VarianceParts((0.1, 0.1), (0.0, 0.0), 0.1, (3, 3), 1000)
    needed = required_sizes(0.0, parts)
    assert (needed.seeds, needed.blocks) == (None, None)
    alone = VarianceParts(None, (0.0, 0.0), 0.1, (1, 1), 1000)
    with pytest.raises(ValueError, match="variance between seeds is unknown"):
        required_sizes(0.5, alone)
