"""Whether two systems differ on one split: paired bootstrap, approximate randomisation.

Both ask how often a difference as large would come about by chance: the bootstrap
draws sentences anew (Koehn 2004, "Statistical Significance Tests for Machine
Translation Evaluation"), randomisation swaps the two systems' answers (Noreen 1989;
Riezler and Maxwell 2005).

They are not sacrebleu's, which count what differs more than the systems do, not as
much, so that two that write the same are told apart, and whose bootstrap rejects twice
as often as it says.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import sacrebleu
from jaxtyping import Float

TRIALS = 10_000  # of randomisation
SAMPLES = 1000  # of the bootstrap
FEWEST = 20  # blocks; of fewer the bootstrap sees differences that are none
PART = 64  # trials that are made at once

Sums = Float[np.ndarray, "K"]
Score = Callable[[Sums], float]  # of what is counted, added up over blocks


@dataclasses.dataclass(frozen=True)
class Paired:
    """What is found of two systems.

    Attributes:
      difference: of their scores, the second less the first.
      bootstrap, randomisation: two-sided p values; the former None where there are
        too few blocks for it.
      interval: 95%, of the difference, by the bootstrap; () where there is none.
    """

    difference: float
    bootstrap: float | None
    randomisation: float
    interval: tuple[float, ...] = ()


def compare_texts(
    first: list[str], second: list[str], references: list[str], *, tokenize: str
) -> dict[str, Paired]:
    """BLEU and chrF of two systems' translations.

    Args:
      tokenize: BLEU's, as in its signature.
    """
    metrics = {"bleu": sacrebleu.BLEU(tokenize=tokenize), "chrf": sacrebleu.CHRF()}
    found = {}
    for name, metric in metrics.items():
        counted = [
            np.asarray(metric._extract_corpus_statistics(texts, [references]), float)
            for texts in (first, second)
        ]
        found[name] = compare(*counted, score_of(metric))
    return found


def score_of(metric) -> Score:
    """sacrebleu's score of what it counts in sentences, added up."""
    return lambda sums: metric._compute_score_from_stats(sums.tolist()).score


def compare_losses(
    first: Float[np.ndarray, "N"],
    second: Float[np.ndarray, "N"],
    weight: Float[np.ndarray, "N"],
) -> Paired:
    """Mean losses of two systems over the same tokens.

    Args:
      first, second: sums over blocks.
      weight: tokens of each block.
    """
    counted = [
        np.stack([losses, weight], 1).astype(float) for losses in (first, second)
    ]
    return compare(*counted, lambda sums: sums[0] / sums[1])


def compare(
    first: Float[np.ndarray, "N K"], second: Float[np.ndarray, "N K"], score: Score
) -> Paired:
    """Scores of two systems that are made of sums over sentences or other blocks.

    Args:
      first, second: what is counted in each block, which is what is swapped or drawn.
    """

    def change(one: Sums, other: Sums) -> float:
        return score(other) - score(one)

    totals = first.sum(0), second.sum(0)
    difference = change(*totals)
    rounding = 1e-12 * sum(abs(score(sums)) for sums in totals)  # in another order
    least = abs(difference) - rounding
    swaps = [abs(change(*sums)) >= least for sums in swapped(first, second)]
    # Where not all ways are gone through, the one that was seen is one of them.
    seen = len(swaps) == TRIALS
    chance = (sum(swaps) + seen) / (len(swaps) + seen)
    if len(first) < FEWEST:
        return Paired(difference, None, chance)
    drawn = np.asarray([change(*sums) for sums in resampled(first, second)])
    far = (np.abs(drawn - difference) >= least).sum()
    low, high = np.percentile(drawn, [2.5, 97.5])
    bootstrap = (far + 1) / (SAMPLES + 1)
    return Paired(difference, float(bootstrap), chance, (float(low), float(high)))


def swapped(
    first: Float[np.ndarray, "N K"], second: Float[np.ndarray, "N K"]
) -> Iterator[tuple[Sums, Sums]]:
    """Sums of two systems that swapped some blocks: all ways, where they are few."""
    middle, half = (first + second).sum(0) / 2, (second - first) / 2
    for signs in _signs(len(first)):
        for apart in signs @ half:
            yield middle - apart, middle + apart


def _signs(count):
    """1 where a block is kept and -1 where it is swapped, a row a way."""
    if 2**count < TRIALS:
        yield np.asarray(list(itertools.product((-1, 1), repeat=count)))
        return
    random = np.random.default_rng(0)
    for start in range(0, TRIALS, PART):
        size = (min(PART, TRIALS - start), count)
        yield 2.0 * random.integers(2, size=size, dtype=np.int8) - 1


def resampled(
    first: Float[np.ndarray, "N K"], second: Float[np.ndarray, "N K"]
) -> Iterator[tuple[Sums, Sums]]:
    """Sums over as many blocks as there are, drawn with replacement."""
    random, count = np.random.default_rng(0), len(first)
    for _ in range(SAMPLES):
        drawn = random.integers(count, size=count)
        yield first[drawn].sum(0), second[drawn].sum(0)
