"""Power of a comparison, and the numbers of seeds and test sentences that it needs.

The test of `analysis/compare/difference.py` finds a true difference d with probability

    P(|T| > t),   T: noncentral t distribution with noncentrality d / sqrt(V(n))

where t is the critical value at the level of one comparison, and V(n) and the degrees
of freedom are those expected with n seeds of each system. V(n) does not fall below the
part `shared`, which only a larger test split makes smaller.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit
from scipy.stats import nct

from analysis.compare.difference import LEVEL, VarianceParts

POWER = 0.8
MAX_SEEDS = 1000  # of more seeds the variance of their mean counts as 0
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
) -> float | Float[np.ndarray, "..."]:
    """Returns the probability that a true difference is found, with its sign."""
    freedom = parts.freedom
    with np.errstate(divide="ignore"):
        noncentrality = np.abs(difference) / np.sqrt(parts.variance)
    critical = stdtrit(freedom, 1 - level / 2)
    return nct.sf(critical, freedom, np.minimum(noncentrality, 1e3))


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
        return bool(predict_power(difference, expected, level) >= POWER)

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
