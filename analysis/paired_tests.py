"""Paired tests of two systems on one split: bootstrap and approximate randomisation.

Both estimate how often chance alone gives as large a difference: the bootstrap
resamples sentences (Koehn 2004, "Statistical Significance Tests for Machine Translation
Evaluation"), randomisation swaps the outputs of the two systems (Noreen 1989; Riezler
and Maxwell 2005).

They differ from sacrebleu's tests, which count differences larger than the observed
one but not equal ones, so that systems with identical outputs appear to differ, and
whose bootstrap rejects twice as often as its level says.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import sacrebleu
from jaxtyping import Float

from tasks.text_metrics.base import Texts
from tasks.text_metrics.registry import compute_statistics

TRIALS = 10_000  # of randomisation
SAMPLES = 1000  # of the bootstrap
MIN_BLOCKS = 20  # of fewer the bootstrap finds differences that do not exist
CHUNK = 64  # trials computed at once

Sums = Float[np.ndarray, "K"]
Score = Callable[[Sums], float]  # of statistics summed over blocks


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """The results of both tests for one score."""

    difference: float  # the second system's score minus the first's
    bootstrap: float | None  # two-sided p value; None for too few blocks
    randomisation: float  # two-sided p value
    interval: tuple[float, ...] = ()  # 95% bootstrap; () for too few blocks


def score_function(metric) -> Score:
    """Returns the function from summed sentence statistics to sacrebleu's score."""
    return lambda sums: metric._compute_score_from_stats(sums.tolist()).score


def compare(
    first: Float[np.ndarray, "N K"], second: Float[np.ndarray, "N K"], score: Score
) -> PairedTest:
    """Tests a score that is a function of sums over blocks, such as sentences."""

    def change(one: Sums, other: Sums) -> float:
        return score(other) - score(one)

    totals = first.sum(0), second.sum(0)
    difference = change(*totals)
    if not np.isfinite(difference):
        return PairedTest(difference, None, np.nan)
    # Sums in another order round differently.
    rounding = 1e-12 * sum(abs(score(sums)) for sums in totals)
    threshold = abs(difference) - rounding
    swaps = [abs(change(*sums)) >= threshold for sums in swapped(first, second)]
    # A random selection of swaps does not contain the observed one: add it.
    observed = len(swaps) == TRIALS
    randomisation = (sum(swaps) + observed) / (len(swaps) + observed)
    if len(first) < MIN_BLOCKS:
        return PairedTest(difference, None, randomisation)
    random, changes = np.random.default_rng(0), np.zeros(SAMPLES)
    for sample in range(SAMPLES):
        drawn = random.integers(len(first), size=len(first))
        changes[sample] = change(first[drawn].sum(0), second[drawn].sum(0))
    extreme = (np.abs(changes - difference) >= threshold).sum()
    low, high = np.percentile(changes, [2.5, 97.5])
    bootstrap = float((extreme + 1) / (SAMPLES + 1))
    return PairedTest(difference, bootstrap, randomisation, (float(low), float(high)))


@dataclasses.dataclass(frozen=True)
class BlockStatistics:
    """Statistics of a split's blocks for several systems; their sums give a score.

    Attributes:
      rows: statistics of each system, which have one row a block.
      score: function from sums over blocks to the score.
      test: paired test of the rows of two systems.
    """

    rows: Sequence[Float[np.ndarray, "N K"]]
    score: Score
    test: Callable[..., PairedTest] = compare

    def compare(self) -> PairedTest:
        """Tests the second of two systems against the first."""
        first, second = self.rows
        return self.test(first, second, self.score)


def text_statistics(
    systems: Sequence[list[str]], references: list[str], *, tokenize: str
) -> dict[str, BlockStatistics]:
    """Returns statistics of BLEU, with a tokenizer of sacrebleu, and of chrF."""
    metrics = {"bleu": sacrebleu.BLEU(tokenize=tokenize), "chrf": sacrebleu.CHRF()}
    found = {}
    for name, metric in metrics.items():
        rows = [
            np.asarray(metric._extract_corpus_statistics(texts, [references]), float)
            for texts in systems
        ]
        found[name] = BlockStatistics(rows, score_function(metric))
    return found


def metric_statistics(
    names: Iterable[str], systems: Sequence[Texts]
) -> dict[str, BlockStatistics]:
    """Returns statistics of metrics of `tasks/text_metrics/`.

    Blocks are examples, or dialogues.

    Args:
      systems: hypotheses of each system beside the same references.
    """
    found = {}
    for name in names:
        statistics = [compute_statistics(name, texts) for texts in systems]
        rows = [one.rows for one in statistics]
        found[name] = BlockStatistics(rows, statistics[0].score)
    return found


def loss_statistics(
    systems: Sequence[Float[np.ndarray, "N"]], weight: Float[np.ndarray, "N"]
) -> BlockStatistics:
    """Returns statistics of mean losses.

    Args:
      systems: sum of losses of each block, for each system.
      weight: number of tokens of each block.
    """
    rows = [np.stack([losses, weight], 1).astype(float) for losses in systems]
    return BlockStatistics(rows, lambda sums: sums[0] / sums[1])


def swapped(
    first: Float[np.ndarray, "N K"], second: Float[np.ndarray, "N K"]
) -> Iterator[tuple[Sums, Sums]]:
    """Yields the sums after swapping some blocks: all combinations, if they are few."""
    mean, half_difference = (first + second).sum(0) / 2, (second - first) / 2
    for signs in _signs(len(first)):
        for offset in signs @ half_difference:
            yield mean - offset, mean + offset


def _signs(count):
    """Yields rows with 1 where a block is kept and -1 where it is swapped."""
    if 2**count < TRIALS:
        yield np.asarray(list(itertools.product((-1, 1), repeat=count)))
        return
    random = np.random.default_rng(0)
    for start in range(0, TRIALS, CHUNK):
        size = (min(CHUNK, TRIALS - start), count)
        yield 2.0 * random.integers(2, size=size, dtype=np.int8) - 1
