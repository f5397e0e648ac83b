"""Tests of verdicts: what the sentences say for known differences."""

import pytest

from analysis.compare.difference import Difference, VarianceParts
from analysis.compare.verdict import UNITS, format_verdict, format_verdicts
from analysis.label_tests import STATISTICS
from tasks import language_modeling
from tasks.text_metrics.registry import METRICS
from tasks.understanding import classification, relation_extraction, tagging

NAMES = ("rnn", "transformer")
SEEDS = VarianceParts((0.09, 0.09), (0.0, 0.0), 0.01, (3, 3), 1000)


def make(value, width, p, parts=SEEDS, *, adjusted=None, comparisons=1):
    low, high = value - width, value + width
    adjusted = p if adjusted is None else adjusted
    return Difference(value, low, high, p, parts, adjusted, comparisons)


def test_a_decided_comparison_names_the_better_system_first():
    found = make(-1.9, 1.15, 0.001)
    context = "On multi30k/en-de at 3e14 FLOPs and 16 trials each"
    assert format_verdict(NAMES, found, "bleu", context=context) == (
        "On multi30k/en-de at 3e14 FLOPs and 16 trials each, transformer is ahead of "
        "rnn by 1.9 BLEU (95% interval 0.8 to 3.0)."
    )


def test_a_smaller_loss_is_better_and_also_told_as_perplexity():
    found = make(-0.05, 0.02, 0.001)
    assert format_verdict(NAMES, found, "loss") == (
        "rnn is ahead of transformer by 0.050 nats per token (95% interval 0.030 to "
        "0.070), a perplexity 4.9% lower."
    )


def test_an_undecided_comparison_tells_the_seeds_that_it_needs():
    text = format_verdict(NAMES, make(0.2, 1.1, 0.5), "bleu", smallest=0.5)
    assert text == (
        "rnn and transformer cannot be told apart with 3 seeds: the difference is "
        "0.2 BLEU (95% interval -0.9 to 1.3); about 10 seeds each would be needed to "
        "tell 0.5 BLEU."
    )
    observed = format_verdict(NAMES, make(0.2, 1.1, 0.5), "bleu")
    assert "on this test split no number of seeds would tell 0.2 BLEU" in observed


def test_a_large_difference_that_is_absent_would_have_been_found():
    text = format_verdict(NAMES, make(0.1, 0.5, 0.5), "accuracy", smallest=5)
    assert text.endswith("; a difference of 5 points would probably have been found.")


def test_more_sentences_are_named_where_seeds_do_not_help():
    parts = VarianceParts((0.01, 0.01), (0.0, 0.0), 0.2, (3, 3), 1000)
    text = format_verdict(NAMES, make(0.3, 1.0, 0.5, parts), "f1", smallest=0.5)
    assert "no number of seeds would tell 0.5 F1: that takes about 7,700 test" in text
    assert text.endswith("test sentences and 6 seeds each.")
    none = format_verdict(NAMES, make(0.0, 1.0, 1.0, parts), "f1")
    assert none.endswith("; no number of seeds and test sentences would tell 0.0 F1.")


def test_the_correction_is_told_where_it_matters():
    found = make(1.0, 0.9, 0.03, adjusted=0.09, comparisons=3)
    text = format_verdict(NAMES, found, "bleu", smallest=0.5)
    assert "(95% interval 0.1 to 1.9 before the correction for 3 comparisons)" in text
    assert "cannot be told apart" in text


@pytest.mark.parametrize("p", [0.001, 0.5])
def test_one_seed_each_leaves_their_spread_unknown(p):
    parts = VarianceParts(None, (0.0, 0.0), 0.1, (1, 1), 1000)
    [text] = format_verdicts({NAMES: make(1.0, 0.6, p, parts)}, "bleu")
    assert "(95% interval 0.4 to 1.6 over test sentences)" in text
    assert text.endswith("; with one seed each the spread of seeds is unknown.")


def test_all_scores_with_statistics_have_a_unit_with_the_right_direction():
    directions = {name: metric.direction for name, metric in METRICS.items()}
    for module in (classification, relation_extraction, tagging, language_modeling):
        directions |= module.Task.metric_directions
    assert {*METRICS, *STATISTICS, "loss"} == UNITS.keys()
    assert all(directions[name] == unit.direction for name, unit in UNITS.items())
