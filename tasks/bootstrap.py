"""How sure a mean loss is: a bootstrap over blocks of a split (Efron 1979).

A block is a sentence, or BLOCK consecutive tokens of a text, which depend on each
other too much to be drawn one by one. Blocks are those of the text, whatever the
segments or windows it was read in, so that two runs' blocks can be paired.
"""

import dataclasses

import numpy as np

BLOCK = 128  # tokens
SAMPLES = 1000  # resamplings of the blocks


@dataclasses.dataclass
class BootstrapBlocks:
    """Sums of losses over the blocks of a split.

    Attributes:
      total: nats of each block.
      weight: tokens of each block.
    """

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def zeros(cls, count: int) -> "BootstrapBlocks":
        """So many empty blocks."""
        return cls(np.zeros(count), np.zeros(count))

    def add(self, numbers: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> None:
        """Adds losses, each to the block of its number; those of weight 0 to none."""
        there = weights > 0
        size = len(self.total)
        self.total += np.bincount(numbers[there], losses[there], size)
        self.weight += np.bincount(numbers[there], weights[there], size)

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.total.sum() / self.weight.sum())

    def interval(self) -> tuple[float, float]:
        """The 95% interval of the mean: percentiles of means of resampled blocks.

        Too narrow where blocks are few: of five about 0.85 of such intervals hold.
        """
        means = resampled_means(self.total, self.weight)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)


def resampled_means(
    total: np.ndarray, weight: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """The mean of as many blocks as there are, drawn with replacement, many times."""
    random = np.random.default_rng(seed)
    means = np.empty(samples)
    for number in range(samples):
        drawn = random.integers(len(total), size=len(total))
        means[number] = total[drawn].sum() / weight[drawn].sum()
    return means
