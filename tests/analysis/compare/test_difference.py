"""Tests of differences over seeds and sentences, against t tests."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from analysis.compare.difference import (
    VarianceParts,
    compare_cards_of_systems,
    estimate_difference,
    holm,
    resample,
    resampled_covariance,
    variance_parts,
)
from analysis.paired_tests import BlockStatistics, loss_statistics
from analysis.report.score_cards import ScoreCard
from utils.errors import UserError


def compare(scores, num_first, covariance=None, num_blocks=1000):
    scores = np.asarray(scores)
    if covariance is None:
        covariance = np.zeros((len(scores), len(scores)))
    parts = variance_parts(scores, covariance, num_first, num_blocks)
    return estimate_difference(scores, num_first, parts)


@pytest.mark.parametrize("counts", [(3, 3), (2, 5), (5, 4)])
def test_without_variance_over_sentences_it_is_welchs_t_test(counts):
    random = np.random.default_rng(sum(counts))
    first, second = (
        random.normal(30, sd, n) for sd, n in zip((1, 2), counts, strict=True)
    )
    found = compare([*first, *second], len(first))
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_seeds_without_any_spread_leave_the_variance_over_sentences():
    covariance = np.diag([0.04] * 2 + [0.09] * 2) * 0
    covariance[:2, :2], covariance[2:, 2:] = 0.04, 0.09
    found = compare([30.0, 30.0, 31.0, 31.0], 2, covariance)
    assert found.parts.variance == pytest.approx(0.13)
    assert found.parts.freedom == 4  # twice those of the seeds
    assert found.p == pytest.approx(2 * stats.t.sf(1 / np.sqrt(0.13), 4))


def test_one_seed_each_is_the_paired_t_test_over_sentences():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 400)) + random.normal(size=400)
    covariance = np.cov([first, second]) / 400
    found = compare([first.mean(), second.mean()], 1, covariance, num_blocks=400)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert not found.knows_seeds


def test_parts_are_those_of_simulated_systems():
    """The mean of the estimates over many splits, each with its own sentences."""
    random = np.random.default_rng(0)
    shape, num_blocks = (2000, 2, 3), 50
    common = random.normal(0, 9.0, (2000, 1, 1, num_blocks))
    system = random.normal(0, 2.0, (2000, 2, 1, num_blocks))
    own = random.normal(0, 3.0, (*shape, num_blocks))
    values = (common + system + own).reshape(2000, 6, num_blocks)
    scores = values.mean(-1) + random.normal(0, 0.5, (2000, 6))
    centred = values - values.mean(-1, keepdims=True)
    covariance = centred @ centred.mT / (num_blocks - 1) / num_blocks
    parts = variance_parts(scores, covariance, 3, num_blocks)
    own_variance = 9 / num_blocks
    assert np.mean(parts.own[0]) == pytest.approx(own_variance, rel=0.02)
    assert np.mean(parts.seeds[1]) == pytest.approx(0.25 + own_variance, rel=0.06)
    # Negative estimates count as 0, hence the wider bound.
    assert np.mean(parts.shared) == pytest.approx(2 * 4 / num_blocks, rel=0.08)
    true = np.var(scores[:, :3].mean(-1) - scores[:, 3:].mean(-1))
    assert np.mean(parts.variance) == pytest.approx(true, rel=0.12)


def test_a_system_with_one_seed_takes_the_variances_of_the_other():
    covariance = np.diag([0.02, 0.02, 0.02, 0.02]) + 0.5
    found = compare([30.0, 31.0, 31.5, 33.0], 1, covariance)
    seeds = np.var([31.0, 31.5, 33.0], ddof=1)
    assert found.parts.seeds == (seeds, seeds)
    assert found.parts.own == pytest.approx((0.02, 0.02))
    assert found.parts.variance == pytest.approx(seeds * (1 + 1 / 3))
    assert found.parts.freedom == pytest.approx(2)


def test_degrees_of_freedom_grow_with_the_share_of_sentences_up_to_a_bound():
    parts = VarianceParts((0.3, 0.3), (0.0, 0.0), 0.0, (3, 3), 1000)
    freedom = [
        float(dataclasses.replace(parts, shared=shared).freedom)
        for shared in (0.0, 0.02, 0.05, 1.0)
    ]
    assert freedom[0] == pytest.approx(4)
    assert freedom == sorted(freedom)
    assert freedom[-1] == 8


def test_expected_parts_shrink_with_seeds_and_sentences():
    parts = VarianceParts((0.5, 0.3), (0.2, 0.1), 0.1, (3, 3), 1000)
    more = parts.with_sizes((6, 6))
    assert more.variance == pytest.approx(0.1 + 0.8 / 6)
    endless = parts.with_sizes((3, 3), 1e12)
    assert endless.variance == pytest.approx((0.3 + 0.2) / 3)
    double = parts.with_sizes((3, 3), 2000)
    assert double.variance == pytest.approx(0.05 + (0.3 + 0.1 + 0.2 + 0.05) / 3)


def test_resampled_covariance_of_a_mean_is_that_of_sentences():
    random = np.random.default_rng(1)
    common = random.normal(size=200)
    rows = [common + random.normal(size=200) for _ in range(3)]
    statistics = loss_statistics(rows, np.ones(200))
    scores, resampled = resample(statistics, 20_000)
    assert scores == pytest.approx([row.mean() for row in rows])
    found = resampled_covariance(resampled, 200)
    assert found == pytest.approx(np.cov(rows) / 200, abs=3e-4)  # 4 errors


def test_few_blocks_are_refused():
    rows = [np.ones((19, 2))] * 2
    with pytest.raises(UserError, match="19 blocks; a comparison needs 20"):
        resample(BlockStatistics(rows, sum))


def test_holm_is_the_step_down_procedure():
    random = np.random.default_rng(0)
    p = random.random((200, 4)) ** 3
    adjusted = holm(p)
    for row, found in zip(p, adjusted, strict=True):
        rejected, left = set(), 4
        for index in np.argsort(row):
            if row[index] > 0.05 / left:
                break
            rejected.add(index)
            left -= 1
        assert rejected == set(np.flatnonzero(found <= 0.05))
    assert holm(np.asarray([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.asarray([0.2])) == pytest.approx([0.2])


def make_card(seed, shift, *, blocks=300, **protocol):
    """A card with losses of blocks that are alike for all cards."""
    weight = np.full(blocks, 100)
    common = np.random.default_rng(0).normal(3, 1, blocks)
    own = np.random.default_rng(seed).normal(shift, 0.05, blocks)
    losses = (common + own) * weight
    scores = {"loss": {"value": losses.sum() / weight.sum()}}
    content = {"split": "test", "scores": scores, "protocol": {"data": "a", **protocol}}
    return ScoreCard(f"card-{seed}", content, blocks=(losses, weight))


def test_cards_of_systems_are_compared_in_pairs_with_holms_correction():
    systems = {
        name: [make_card(10 * k + seed, shift) for seed in range(3)]
        for k, (name, shift) in enumerate({"a": 0, "b": 0, "c": 0.1}.items(), start=1)
    }
    found = compare_cards_of_systems(systems, "loss")
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    decided = {names: bool(entry.is_decided) for names, entry in found.items()}
    assert decided == {("a", "b"): False, ("a", "c"): True, ("b", "c"): True}
    one = found["a", "c"]
    values = [[card.values["loss"] for card in systems[name]] for name in "ac"]
    assert one.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert one.low < one.value < one.high < 0
    assert one.p < one.adjusted_p <= 3 * one.p
    [alone] = compare_cards_of_systems(systems, "loss", [("a", "c")]).values()
    assert (alone.p, alone.adjusted_p) == (one.p, one.p)


def test_cards_that_cannot_be_compared_are_refused():
    cards = {"a": [make_card(1, 0)], "b": [make_card(2, 0, decode=3)]}
    with pytest.raises(UserError, match=r"not comparable: decode is None .* and 3"):
        compare_cards_of_systems(cards, "loss")
    cards["b"] = [make_card(2, 0)]
    with pytest.raises(UserError, match=r"'bleu' cannot .* statistics of loss"):
        compare_cards_of_systems(cards, "bleu")
