"""Paired tests of predicted labels, tags and grades, from the samples of two systems.

Percentages of correct examples have McNemar's exact test (McNemar 1947): if two systems
are equally good, the examples that one of them alone has right are as often the first's
as the second's. That is approximate randomisation with all swaps, so
`PairedTest.randomisation` holds its p value. Other scores have the tests of
`analysis/paired_tests.py`, with examples as blocks.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

from analysis.paired_tests import BlockStatistics, PairedTest, Score, compare
from tasks.text_metrics.base import percentage
from tasks.understanding.semeval import DIRECTION, NEGATIVE
from tasks.understanding.span_metrics import find_entities
from utils.errors import UserError

Samples = list[dict]  # of one system: "reference" and "hypothesis" of each example
ROUNDING = 1e-12  # relative to the sum of squares
Group = Callable[[str], str | None]  # from a label to what its F1 is of, if anything


def label_statistics(
    systems: Sequence[Samples], scores: Collection[str]
) -> dict[str, BlockStatistics]:
    """Returns statistics of those of the named scores that have a test.

    Raises UserError where a system has no predictions, or the systems have other
    references.
    """
    if not all(systems):
        raise UserError("predictions are missing; run eval.py")
    kept = ("reference", "reference_intent")
    first, *others = [[[row.get(k) for k in kept] for row in s] for s in systems]
    if any(rows != first for rows in others):
        raise UserError("the references of the cards differ")
    return {name: STATISTICS[name](systems) for name in scores if name in STATISTICS}


def compare_correct(
    first: Float[np.ndarray, "N 2"], second: Float[np.ndarray, "N 2"], score: Score
) -> PairedTest:
    """Tests percentages of correct examples, by McNemar's exact test.

    Args:
      first, second: for each example whether it is correct, and 1.
    """
    test = compare(first, second, score)
    one, other = (rows[:, 0] > 0 for rows in (first, second))
    alone = [int((one & ~other).sum()), int((other & ~one).sum())]
    p = binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
    return dataclasses.replace(test, randomisation=float(p))


def _count_right(kinds: tuple[str, ...], systems: Sequence[Samples]):
    """Counts examples that have all fields of these kinds right."""
    names = [(f"reference{kind}", f"hypothesis{kind}") for kind in kinds]
    sides = [
        [all(row.get(a) == row.get(b) for a, b in names) for row in side]
        for side in systems
    ]
    rows = [np.stack([side, np.ones(len(side))], axis=1) for side in sides]
    return BlockStatistics(rows, percentage, compare_correct)


def _count_groups(group: Group, of_actual: bool, systems: Sequence[Samples]):
    """Counts labels for the mean F1 of groups of labels.

    Args:
      of_actual: leaves out groups without a reference; else those that do not occur.
    """
    labels = {
        row[key]
        for samples in systems
        for row in samples
        for key in ("reference", "hypothesis")
    }
    groups = sorted({group(label) for label in labels} - {None})

    def statistics(samples):
        counts = np.zeros((len(samples), 3, len(groups)))
        for row, sample in zip(counts, samples, strict=True):
            actual, found = sample["reference"], sample["hypothesis"]
            for column, label in enumerate((actual, found)):
                if group(label) is not None:
                    row[column, groups.index(group(label))] = 1
            if actual == found:
                row[2] = row[0]
        return counts.reshape(len(samples), -1)

    def score(sums):
        actual, found, correct = sums.reshape(3, -1)
        counted = (actual if of_actual else actual + found) > 0
        f1 = 200 * correct[counted] / (actual + found)[counted]
        return f1.mean() if f1.size else 0.0

    return BlockStatistics([statistics(samples) for samples in systems], score)


def _count_spans(mode: str, systems: Sequence[Samples]) -> BlockStatistics:
    """Counts entities of sentences, for their F1."""

    def statistics(samples):
        rows = []
        for row in samples:
            actual, found = (
                find_entities(row[key].split(" "), mode)
                for key in ("reference", "hypothesis")
            )
            rows.append((len(actual & found), len(found) + len(actual)))
        return np.asarray(rows, float)

    def score(sums):
        return 200 * sums[0] / sums[1] if sums[1] else 0.0

    return BlockStatistics([statistics(samples) for samples in systems], score)


def _count_tags(systems: Sequence[Samples]) -> BlockStatistics:
    """Counts correct tags and all tags of sentences."""
    sides = [
        [[row[key].split(" ") for key in ("reference", "hypothesis")] for row in side]
        for side in systems
    ]
    rows = [
        np.asarray([(sum(map(str.__eq__, *tags)), len(tags[0])) for tags in side])
        for side in sides
    ]
    return BlockStatistics([side.astype(float) for side in rows], percentage)


def _sum_grades(systems: Sequence[Samples]) -> BlockStatistics:
    """Sums grades, their squares and products, for Pearson's correlation."""

    def statistics(samples) -> Float[np.ndarray, "N 6"]:
        x, y = (
            np.asarray([float(row[key]) for row in samples])
            for key in ("reference", "hypothesis")
        )
        x, y = x - x.mean(), y - x.mean()  # sums of squares then lose fewer digits
        return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def score(sums):
        number, x, y, xx, yy, xy = sums
        spreads = number * xx - x * x, number * yy - y * y
        # A constant side leaves rounding errors.
        if spreads[0] <= ROUNDING * number * xx or spreads[1] <= ROUNDING * number * yy:
            return 0.0
        return 100 * (number * xy - x * y) / np.sqrt(spreads[0] * spreads[1])

    return BlockStatistics([statistics(samples) for samples in systems], score)


def _relation(label: str) -> str | None:
    return None if label in NEGATIVE else DIRECTION.sub("", label)


def _any_relation(label: str) -> str | None:
    return None if label in NEGATIVE else "all"


STATISTICS = {
    "accuracy": functools.partial(_count_right, ("",)),
    "intent_accuracy": functools.partial(_count_right, ("_intent",)),
    "sentence_accuracy": functools.partial(_count_right, ("", "_intent")),
    "token_accuracy": _count_tags,
    "macro_f1": functools.partial(_count_groups, str, False),
    "official_f1": functools.partial(_count_groups, _relation, True),
    "micro_f1": functools.partial(_count_groups, _any_relation, False),
    "f1": functools.partial(_count_spans, "conlleval"),
    "strict_f1": functools.partial(_count_spans, "strict"),
    "pearson": _sum_grades,
}
