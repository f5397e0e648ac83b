"""Power of a comparison, and the numbers of seeds and test sentences that it needs.

The test of `analysis/compare/difference.py` finds a true difference d with probability

    E Phi((d - t(f) sqrt(V)) / sqrt(V_true))

over the estimates s_a^2 and s_b^2, which have chi-squared distributions; V and the
degrees of freedom f follow from them, and t is the critical value at the level of one
comparison. The variance over sentences counts as known. V_true does not fall below its
part `shared`, which only a larger test split makes smaller.
"""

import dataclasses

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from analysis.compare.difference import LEVEL, VarianceParts

POWER = 0.8
MAX_SEEDS = 1000  # of more seeds the variance of their mean counts as 0
NUM_QUANTILES = 24  # of the distribution of a variance
TINY = 1e-300  # in place of a variance of 0
MAX_GROWTH = 1e6  # of the test split


@dataclasses.dataclass(frozen=True)
class RequiredSizes:
    """Sizes with which a difference is found with probability POWER.

    Attributes:
      difference: the true difference.
      level: level of each comparison.
      seeds: number of seeds of each system on this test split; None: more seeds do
        not help.
      blocks: where more seeds do not help, the number of test sentences, or other
        blocks, that does with `seeds_for_blocks` seeds; None for a difference of 0.
    """

    difference: float
    level: float
    seeds: int | None
    blocks: int | None = None
    seeds_for_blocks: int | None = None


def level_of_one(num_comparisons: int) -> float:
    """Returns the level at which Holm's correction tests the smallest p value."""
    return LEVEL / num_comparisons


def predict_power(
    difference: float, parts: VarianceParts, level: float = LEVEL
) -> float:
    """Returns the probability that a true difference is found, with its sign.

    Args:
      parts: true parts of the variance, with several seeds of both systems.
    """
    quantiles = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    first, second = (
        variance * chdtri(count - 1, quantiles) / (count - 1)
        for variance, count in zip(parts.seeds, parts.counts, strict=True)
    )
    estimates = tuple(np.meshgrid(first, second))
    estimated = dataclasses.replace(parts, seeds=estimates)
    true = parts.shared + sum(
        x / n for x, n in zip(parts.seeds, parts.counts, strict=True)
    )
    needed = stdtrit(estimated.freedom, 1 - level / 2) * np.sqrt(estimated.variance)
    deviation = np.sqrt(max(true, TINY))
    return float(ndtr((abs(difference) - needed) / deviation).mean())


def required_sizes(
    difference: float, parts: VarianceParts, num_comparisons: int = 1
) -> RequiredSizes:
    """Returns the numbers of seeds and sentences that a difference needs.

    Args:
      difference: the true difference, such as the smallest one of interest.
      parts: estimated parts of the variance, with some system of several seeds.

    Raises:
      ValueError: there is one seed of each system, so their variance is unknown.
    """
    if parts.seeds is None:
        raise ValueError("the variance between seeds is unknown: add seeds")
    level = level_of_one(num_comparisons)

    def is_enough(seeds: int, blocks: float | None = None) -> bool:
        expected = parts.with_sizes((seeds, seeds), blocks)
        return predict_power(difference, expected, level) >= POWER

    if difference == 0:
        return RequiredSizes(difference, level, None)
    if seeds := _smallest(is_enough, 2, MAX_SEEDS):
        return RequiredSizes(difference, level, seeds)
    endless = MAX_GROWTH * parts.num_blocks
    fewest = _smallest(lambda n: is_enough(n, endless), 2, MAX_SEEDS)
    if fewest is None:
        return RequiredSizes(difference, level, None)
    # With the fewest seeds that can do, the split would have to be endless.
    seeds = max(*parts.counts, 2 * fewest)
    blocks = _smallest(lambda n: is_enough(seeds, n), parts.num_blocks, int(endless))
    return RequiredSizes(difference, level, None, blocks, seeds)


def _smallest(is_enough, low: int, high: int) -> int | None:
    """Returns the smallest number that is enough, by bisection; None: `high` is not."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
