"""Bootstrap intervals of scores over the examples of a split (Efron 1979)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from tasks.bootstrap import NUM_SAMPLES

Scores = dict[str, dict[str, float]]  # "value", "low" and "high" by name
ScoreExamples = Callable[[Int[np.ndarray, "N"]], dict[str, float]]


def score_examples(
    num_examples: int, score: ScoreExamples, *, intervals: bool
) -> Scores:
    """Returns scores of all examples, with 95% percentile intervals if asked.

    Args:
      score: computes the scores of the examples of some indices, which may repeat.
    """
    scores = {k: {"value": x} for k, x in score(np.arange(num_examples)).items()}
    if not intervals:
        return scores
    random, samples = np.random.default_rng(0), []
    for _ in range(NUM_SAMPLES):
        samples.append(score(random.integers(num_examples, size=num_examples)))
    for name, entry in scores.items():
        low, high = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        entry |= {"low": float(low), "high": float(high)}
    return scores
