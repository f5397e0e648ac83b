"""Difference of two systems that were trained with several seeds, on one test split.

The difference D of the mean scores of two systems a and b varies with the seeds and
with the test sentences. Sentences and seeds are crossed: every run is scored on the
same sentences. With n_a and n_b seeds the variance of D is

    V = shared + max(S, I),   S = s_a^2/n_a + s_b^2/n_b,   I = i_a^2/n_a + i_b^2/n_b

    s^2: variance between the scores of a system's seeds on this split
    i^2: the part of a run's variance over sentences that is its own
    shared = c_aa + c_bb - 2 c_ab >= 0: the part that all seeds have in common

c_aa is the mean covariance, over resampled sentences (Efron 1979; Koehn 2004), of the
scores of two seeds of system a; c_ab that of a seed of each system; i_a^2 the mean
variance of a seed minus c_aa. These are the components of studies with crossed readers
and cases (Obuchowski and Rockette 1995; Hillis 2007; Hillis 2014, readers nested in
treatments), with seeds as readers and sentences as cases. The plain sum of S and the
bootstrap variance of D, which is shared + I, counts I twice, since s^2 contains it.

D / sqrt(V) has a t distribution with the degrees of freedom of Welch (1947) and
Satterthwaite (1946),

    V^2 / ((s_a^2/n_a)^2/(n_a - 1) + (s_b^2/n_b)^2/(n_b - 1) + (V - S)^2/(N - 1)),

for N blocks of the split, but at most FREEDOM_RATIO (n_a + n_b - 2) of them: where
chance makes s^2 small, the formula would take the seeds for well known, and 3.5% of
equal systems with two seeds would differ at the level of 1.7% (docs/comparing.md).

A system with a single seed takes the variances of the other one. With one seed each the
variance is that over sentences alone, as in `analysis/paired_tests.py`: it says nothing
about other seeds.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

from analysis.paired_tests import CHUNK, MIN_BLOCKS, BlockStatistics
from analysis.report.score_cards import (
    ScoreCard,
    card_statistics,
    protocol_differences,
)
from utils.errors import UserError

LEVEL = 0.05  # rate of differences found between equal systems
FREEDOM_RATIO = 2  # see above
NUM_RESAMPLES = 1000

Numbers = Float[np.ndarray, "..."] | float


@dataclasses.dataclass(frozen=True)
class VarianceParts:
    """Parts of the variance of a difference of mean scores, for two systems.

    Attributes:
      seeds: variances s^2 between the seeds of each system; None: one seed each.
      own: variances i^2 over sentences of single runs of each system; with one seed
        each they are unknown, and 0.
      shared: variance over sentences that more seeds leave as it is; with one seed
        each all the variance over sentences.
      counts: number of seeds of each system.
      num_blocks: number N of blocks, such as sentences, of the split.
    """

    seeds: tuple[Numbers, Numbers] | None
    own: tuple[Numbers, Numbers]
    shared: Numbers
    counts: tuple[int, int]
    num_blocks: int

    @property
    def variance(self) -> Numbers:
        """Variance V of the difference."""
        return self.shared + np.maximum(self._mean(self.seeds), self._mean(self.own))

    @property
    def freedom(self) -> Numbers:
        """Degrees of freedom of the estimate of the variance."""
        total, seeds = self.variance, self._mean(self.seeds)
        spread = (total - seeds) ** 2 / (self.num_blocks - 1)
        known = [
            (variance, count)
            for variance, count in zip(self.seeds or (), self.counts, strict=False)
            if count > 1
        ]
        if not known:
            return np.full(np.shape(total), self.num_blocks - 1.0)
        if len(known) == 1:  # both variances are that of one system
            spread = spread + seeds**2 / (known[0][1] - 1)
        else:
            spread = spread + sum((x / n) ** 2 / (n - 1) for x, n in known)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(spread > 0, total**2 / spread, np.inf)
        return np.minimum(freedom, FREEDOM_RATIO * (sum(self.counts) - 2))

    def with_sizes(
        self, counts: tuple[int, int], num_blocks: float | None = None
    ) -> "VarianceParts":
        """Returns the parts as expected for other numbers of seeds and of blocks.

        The variances over sentences shrink with the number of blocks, and so does the
        part of s^2 that is due to them.
        """
        shrink = 1.0 if num_blocks is None else self.num_blocks / num_blocks
        seeds = self.seeds and tuple(
            np.maximum(s - i, 0) + shrink * np.minimum(s, i)
            for s, i in zip(self.seeds, self.own, strict=True)
        )
        own = tuple(shrink * x for x in self.own)
        size = self.num_blocks if num_blocks is None else num_blocks
        return VarianceParts(seeds, own, shrink * self.shared, counts, size)

    def _mean(self, parts: tuple[Numbers, Numbers] | None) -> Numbers:
        """Variance of the difference of two means, of parts that differ by seed."""
        if parts is None:
            return 0.0
        return sum(x / n for x, n in zip(parts, self.counts, strict=True))


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first system's mean score minus the second's; fields are of any one shape.

    Attributes:
      low, high: ends of the 95% interval.
      p: two-sided p value of equal systems.
      adjusted_p: p value after Holm's correction for `num_comparisons`.
    """

    value: Numbers
    low: Numbers
    high: Numbers
    p: Numbers
    parts: VarianceParts
    adjusted_p: Numbers
    num_comparisons: int = 1

    @property
    def is_decided(self) -> Numbers:
        """Whether the systems can be told apart at LEVEL, all comparisons together."""
        return self.adjusted_p <= LEVEL

    @property
    def knows_seeds(self) -> bool:
        """Whether some system has several seeds."""
        return self.parts.seeds is not None


def compare_cards_of_systems(
    systems: Mapping[str, Sequence[ScoreCard]],
    metric: str,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> dict[tuple[str, str], Difference]:
    """Compares systems by a score of their cards, with Holm's correction.

    Args:
      systems: the cards of each system, one a seed, all of one split.
      metric: name of the score, such as "bleu" or "loss".
      pairs: names of the systems to compare; None: all pairs.

    Raises:
      UserError: protocols differ, or the cards lack statistics of the score.
    """
    cards = [card for seeds in systems.values() for card in seeds]
    if differences := protocol_differences(cards):
        raise UserError(f"Cards are not comparable: {'; '.join(differences)}")
    statistics, reasons = card_statistics(cards)
    if metric not in statistics:
        known = ", ".join(statistics) or "no score"
        raise UserError(
            f"{metric!r} cannot be compared on these cards, which have statistics of "
            f"{known}{''.join(f'; {reason}' for reason in reasons)}"
        )
    sizes = {name: len(seeds) for name, seeds in systems.items()}
    return compare_systems(statistics[metric], sizes, pairs)


def compare_systems(
    statistics: BlockStatistics,
    sizes: Mapping[str, int],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> dict[tuple[str, str], Difference]:
    """Compares systems by a score of their runs, with Holm's correction.

    Args:
      statistics: those of all runs, one system after the other.
      sizes: number of runs of each system.
      pairs: names of the systems to compare; None: all pairs.
    """
    ends = np.cumsum([*sizes.values()]).tolist()
    ranges = dict(zip(sizes, map(range, [0, *ends], ends), strict=False))
    if pairs is None:
        pairs = list(itertools.combinations(sizes, 2))
    scores, resampled = resample(statistics)
    num_blocks = len(statistics.rows[0])
    covariance = resampled_covariance(resampled, num_blocks)
    found = {}
    for first, second in pairs:
        runs = [*ranges[first], *ranges[second]]
        num_first = len(ranges[first])
        parts = variance_parts(
            scores[runs], covariance[np.ix_(runs, runs)], num_first, num_blocks
        )
        found[first, second] = estimate_difference(scores[runs], num_first, parts)
    return correct(found)


def resample(
    statistics: BlockStatistics, num_resamples: int = NUM_RESAMPLES
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "R S"]]:
    """Returns the score of each run, and those on resampled blocks.

    All runs are scored on the same samples.

    Raises:
      UserError: the split has fewer than MIN_BLOCKS blocks.
    """
    rows = np.stack(statistics.rows, axis=1)  # [N S K]
    num_blocks = len(rows)
    if num_blocks < MIN_BLOCKS:
        raise UserError(
            f"The split has {num_blocks} blocks; a comparison needs {MIN_BLOCKS}"
        )
    random, samples = np.random.default_rng(0), []
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        drawn = random.integers(num_blocks, size=(size, num_blocks))
        counts = [np.bincount(indices, minlength=num_blocks) for indices in drawn]
        samples.append(np.tensordot(np.asarray(counts, float), rows, axes=1))
    sums = np.concatenate(samples)  # [R S K]
    score = statistics.score
    resampled = np.asarray([[score(run) for run in sample] for sample in sums], float)
    return np.asarray([score(run) for run in rows.sum(0)], float), resampled


def resampled_covariance(
    resampled: Float[np.ndarray, "R S"], num_blocks: int
) -> Float[np.ndarray, "S S"]:
    """Returns the covariance over sentences of the scores of runs."""
    covariance = np.atleast_2d(np.cov(resampled, rowvar=False))
    return covariance * num_blocks / (num_blocks - 1)


def variance_parts(
    scores: Float[np.ndarray, "... S"],
    covariance: Float[np.ndarray, "... S S"],
    num_first: int,
    num_blocks: int,
) -> VarianceParts:
    """Estimates the parts of the variance of a difference.

    Args:
      scores: those of the runs of the first system, then of the second.
      covariance: that of these scores over sentences.
      num_first: number of runs of the first system.
    """
    systems = slice(None, num_first), slice(num_first, None)
    counts = num_first, scores.shape[-1] - num_first
    between = covariance[..., systems[0], systems[1]].mean((-2, -1))
    blocks = [covariance[..., one, one] for one in systems]
    means = [block.mean((-2, -1)) for block in blocks]
    over_sentences = sum(means) - 2 * between  # of the difference, with these seeds
    if counts == (1, 1):
        return VarianceParts(None, (0.0, 0.0), over_sentences, counts, num_blocks)
    seeds, own = [], []
    for one, block, mean, count in zip(systems, blocks, means, counts, strict=True):
        if count > 1:
            seeds.append(scores[..., one].var(-1, ddof=1))
            # Mean of the diagonal minus that of the other entries.
            trace = np.trace(block, axis1=-2, axis2=-1)
            own.append((trace / count - mean) * count / (count - 1))
    seeds, own = (tuple(part if len(part) == 2 else 2 * part) for part in (seeds, own))
    unshared = sum(x / n for x, n in zip(own, counts, strict=True))
    shared = np.maximum(over_sentences - unshared, 0)
    return VarianceParts(seeds, own, shared, counts, num_blocks)


def estimate_difference(
    scores: Float[np.ndarray, "... S"], num_first: int, parts: VarianceParts
) -> Difference:
    """Returns the difference of the mean scores, its interval and p value."""
    value = scores[..., :num_first].mean(-1) - scores[..., num_first:].mean(-1)
    deviation, freedom = np.sqrt(parts.variance), parts.freedom
    width = stdtrit(freedom, 1 - LEVEL / 2) * deviation
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(freedom, -np.abs(value) / deviation)
    p = np.where(value == 0, 1.0, p)  # also where no run differs from another
    return Difference(value, value - width, value + width, p, parts, p)


def correct(
    differences: Mapping[tuple[str, str], Difference],
) -> dict[tuple[str, str], Difference]:
    """Corrects the p values of several comparisons; see `holm`."""
    adjusted = holm(np.stack([x.p for x in differences.values()], axis=-1))
    return {
        names: dataclasses.replace(
            entry, adjusted_p=adjusted[..., index], num_comparisons=len(differences)
        )
        for index, (names, entry) in enumerate(differences.items())
    }


def holm(p: Float[np.ndarray, "... M"]) -> Float[np.ndarray, "... M"]:
    """Adjusts p values of M comparisons (Holm 1979, "A Simple Sequentially Rejective").

    The k-th smallest one is multiplied by M + 1 - k, and is no less than the smaller
    ones. At most a fraction LEVEL of families of equal systems then has any adjusted
    p value up to LEVEL.
    """
    order, count = np.argsort(p, axis=-1), p.shape[-1]
    ordered = np.take_along_axis(p, order, axis=-1) * np.arange(count, 0, -1)
    ordered = np.minimum(np.maximum.accumulate(ordered, axis=-1), 1.0)
    adjusted = np.empty_like(ordered)
    np.put_along_axis(adjusted, order, ordered, axis=-1)
    return adjusted
