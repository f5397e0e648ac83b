"""Rates at which verdicts are wrong, and find true differences, by simulation.

python -m analysis.compare.calibration

Three systems are trained with 1, 2, 3 or 5 seeds each and scored on one test split of
1,000 sentences. Scores are in BLEU points. The first system is better than the other
two, which are equal, by the true difference in the table. The score of a run varies by
`Deviations`: seeds make better and worse models, and the sentences of the split suit
one system, or one seed of it, better than another. There are two SETTINGS,

    sentences   those of BLEU on Multi30k, where two runs of one architecture differ
                by 0.4 (paired bootstrap) because of the sentences alone
    seeds       the loss of language models, where training matters most,

in both of which scores of seeds have a standard deviation of 0.3 on one split. With one
comparison the first system meets the second, with two both others, with three all pairs
are compared. "wrong" is the fraction of splits where Holm's correction decides any
comparison of equal systems, and should be at most 5%; "found" that where the first
system is found to be better than the second. Both are in percent; "wrong of 3" is that
of three comparisons, and "0.3 found of 3" that for a true difference of 0.3.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from absl import flags
from jaxtyping import Float

from analysis.compare.difference import (
    correct,
    estimate_difference,
    variance_parts,
)
from utils import cli

SIMULATIONS = flags.DEFINE_integer("simulations", 4000, "Simulated test splits.")

NUM_BLOCKS = 1000  # sentences
GAINS = (0.3, 1.0)
DIFFERENCES = (0.0, *GAINS)
SEEDS = (1, 2, 3, 5)
NUM_SYSTEMS = 3
# Compared pairs of systems by number of comparisons.
PAIRS = {1: [(0, 1)], 2: [(0, 1), (0, 2)], 3: list(itertools.combinations(range(3), 2))}
ENDS = (1, 3)  # numbers of comparisons for which the table has what is found
CHUNK = 250  # splits at once


@dataclasses.dataclass(frozen=True)
class Deviations:
    """Standard deviations of a run's score, in points.

    Attributes:
      training: of the seed's model.
      system: of the sentences, alike for all seeds of a system.
      own: of the sentences, for one seed.
    """

    training: float
    system: float
    own: float


SETTINGS = {
    "sentences": Deviations(training=0.17, system=0.21, own=0.25),
    "seeds": Deviations(training=0.30, system=0.07, own=0.05),
}


@dataclasses.dataclass(frozen=True)
class Rates:
    """Fractions of simulated splits for one setting; see the module."""

    seeds: int
    num_comparisons: int
    difference: float
    wrong: float | None  # None: all compared systems differ
    found: float | None  # None: the true difference is 0


def simulate(
    num_simulations: int,
    num_seeds: int,
    deviations: Deviations,
    num_blocks: int = NUM_BLOCKS,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "R S"], Float[np.ndarray, "R S S"]]:
    """Simulates the scores of NUM_SYSTEMS equal systems with some seeds each.

    Returns:
      The scores of all runs, and their covariances over sentences. A score is a mean,
      so its covariance over resampled sentences is that of the sentences over N.
    """
    random, scores, covariances = np.random.default_rng(seed), [], []
    block_scale = np.sqrt(num_blocks)
    for start in range(0, num_simulations, CHUNK):
        size = min(CHUNK, num_simulations - start), NUM_SYSTEMS

        def draw(deviation, *shape, size=size):
            noise = random.standard_normal((*size, *shape), np.float32)
            return np.float32(deviation) * noise

        values = draw(block_scale * deviations.system, 1, num_blocks)
        values = values + draw(block_scale * deviations.own, num_seeds, num_blocks)
        values = values.reshape(size[0], -1, num_blocks)  # of a sentence
        means = values.mean(-1, dtype=np.float64)
        values -= means[..., None].astype(np.float32)
        covariance = values @ values.mT / (num_blocks - 1) / num_blocks
        covariances.append(covariance.astype(np.float64))
        scores.append(means + draw(deviations.training, num_seeds).reshape(means.shape))
    return np.concatenate(scores), np.concatenate(covariances)


def measure_rates(
    num_simulations: int,
    num_seeds: int,
    deviations: Deviations,
    num_blocks: int = NUM_BLOCKS,
) -> Iterator[Rates]:
    """Yields the rates for each number of comparisons and true difference."""
    scores, covariance = simulate(num_simulations, num_seeds, deviations, num_blocks)
    runs = np.arange(NUM_SYSTEMS * num_seeds).reshape(NUM_SYSTEMS, num_seeds)
    for (num, pairs), true in itertools.product(PAIRS.items(), DIFFERENCES):
        shift = np.where(runs.ravel() < num_seeds, true, 0.0)
        differences = {}
        for first, second in pairs:
            pair = runs[[first, second]].ravel()
            parts = variance_parts(
                scores[:, pair],
                covariance[:, pair[:, None], pair],
                num_seeds,
                num_blocks,
            )
            differences[first, second] = estimate_difference(
                (scores + shift)[:, pair], num_seeds, parts
            )
        differences = correct(differences)
        equal = [x for names, x in differences.items() if not true or 0 not in names]
        wrong = np.any([x.is_decided for x in equal], axis=0) if equal else None
        first = differences[0, 1]
        found = (first.is_decided & (first.value > 0)) if true else None
        rates = (None if x is None else float(x.mean()) for x in (wrong, found))
        yield Rates(num_seeds, num, true, *rates)


def main() -> None:
    """Prints the table of rates, in percent."""
    title = [f"wrong of {count}" for count in PAIRS]
    title += [f"{gain} found of {n}" for gain, n in itertools.product(GAINS, ENDS)]
    print(f"| setting | seeds | {' | '.join(title)} |")
    print(f"| --- | ---: |{' ---: |' * len(title)}")
    for (setting, deviations), seeds in itertools.product(SETTINGS.items(), SEEDS):
        rates = {
            (one.num_comparisons, one.difference): one
            for one in measure_rates(SIMULATIONS.value, seeds, deviations)
        }
        cells = [rates[count, 0.0].wrong for count in PAIRS]
        pairs = itertools.product(GAINS, ENDS)
        cells += [rates[count, gain].found for gain, count in pairs]
        text = " | ".join(f"{100 * cell:.1f}" for cell in cells)
        print(f"| {setting} | {seeds} | {text} |")


if __name__ == "__main__":
    cli.run_main(main)
