"""Whether two systems differ on one split: paired bootstrap, approximate randomisation.

Both ask how often a difference as large would come about by chance: the bootstrap
draws sentences anew (Koehn 2004, "Statistical Significance Tests for Machine
Translation Evaluation"), randomisation swaps the two systems' answers (Noreen 1989;
Riezler and Maxwell 2005). For BLEU and chrF both are sacrebleu's.
"""

import dataclasses
import itertools

import numpy as np
import sacrebleu
from sacrebleu.significance import PairedTest

TRIALS = 10_000  # of randomisation
SAMPLES = 1000  # of the bootstrap
FEWEST = 20  # blocks; of fewer the bootstrap sees differences that are none
PART = 64  # trials that are made at once


@dataclasses.dataclass(frozen=True)
class Paired:
    """What is found of two systems.

    Attributes:
      difference: of their scores, the second less the first.
      bootstrap, randomisation: two-sided p values; the former None where there are
        too few blocks for it.
      interval: 95%, of the difference, by the bootstrap; () where it is not known.
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
    systems = [("first", first), ("second", second)]
    found = {}
    for name, metric in metrics.items():
        told = {}
        for kind, trials in (("bs", SAMPLES), ("ar", TRIALS)):
            test = PairedTest(systems, {name: metric}, [references], kind, trials)
            columns = test()[1]
            [told[kind]] = [v for k, v in columns.items() if k != "System"]
        before, after = told["ar"]
        found[name] = Paired(
            after.score - before.score, told["bs"][1].p_value, after.p_value
        )
    return found


def compare_losses(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> Paired:
    """Mean losses of two systems over the same tokens.

    Args:
      first, second: sums over blocks; what is swapped or drawn is a block.
      weight: tokens of each block.
    """
    change = np.asarray(second, float) - np.asarray(first, float)
    difference = change.sum() / weight.sum()
    if len(change) < FEWEST:
        return Paired(float(difference), None, randomisation(change))
    random = np.random.default_rng(0)
    means = np.empty(SAMPLES)
    for number in range(SAMPLES):
        drawn = random.integers(len(change), size=len(change))
        means[number] = change[drawn].sum() / weight[drawn].sum()
    far = np.abs(means - difference) >= abs(difference)
    low, high = np.percentile(means, [2.5, 97.5])
    return Paired(
        float(difference),
        float((far.sum() + 1) / (SAMPLES + 1)),
        randomisation(change),
        (float(low), float(high)),
    )


def randomisation(change: np.ndarray) -> float:
    """How often swapped blocks differ as much: exactly, where there are few.

    Args:
      change: of each block, the second system's sum less the first's.
    """
    least = abs(change.sum()) * (1 - 1e-9)  # sums in another order round otherwise
    if 2 ** len(change) <= TRIALS:
        signs = np.asarray(list(itertools.product((-1, 1), repeat=len(change))))
        return float((np.abs(signs @ change) >= least).mean())
    random = np.random.default_rng(0)
    count = 0
    for start in range(0, TRIALS, PART):
        size = (min(PART, TRIALS - start), len(change))
        signs = 2.0 * random.integers(2, size=size, dtype=np.int8) - 1
        count += int((np.abs(signs @ change) >= least).sum())
    return (count + 1) / (TRIALS + 1)
