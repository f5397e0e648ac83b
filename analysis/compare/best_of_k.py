"""Expected best validation score of k random trials.

The expected maximum of k of n trials (Dodge et al. 2019, "Show Your Work: Improved
Reporting of Experimental Results", section 3) shows what a search with fewer trials
would have found. Dodge et al. draw the k trials with replacement, which is biased for
k near n. Here they are drawn without it, which is unbiased (a U-statistic; Tang et al.
2020, "Showing Your Work Doesn't Always Work"): with the scores v in order, from worst
to best,

    E[best of k] = sum_i C(i - 1, k - 1) / C(n, k) v_i

Trials must be independent and identically distributed, as those of a random search are;
those of a quasi-random sequence nearly are.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from utils.errors import UserError

NUM_RESAMPLES = 1000
# Methods of `sweeps/search_space.py` whose trials are not independent.
DEPENDENT = {
    "tpe": "TPE chooses each trial by the scores of earlier ones",
    "grid": "a grid is not drawn at random",
    "listed": "listed trials are not drawn at random",
}


@dataclasses.dataclass(frozen=True)
class BestOfK:
    """Expected best score of k = 1 to n trials, with a 95% bootstrap band.

    The band resamples trials. Near k = n it is too narrow: no sample has a better trial
    than the best one seen.
    """

    expected: Float[np.ndarray, "N"]
    low: Float[np.ndarray, "N"]
    high: Float[np.ndarray, "N"]


def expected_best(
    scores: Float[np.ndarray, "N"], *, is_max: bool, method: str = "random"
) -> BestOfK:
    """Returns the expected best score of each number of trials.

    Args:
      scores: final validation scores of all trials; nan for one that failed, which
        counts as the worst finite score.
      is_max: whether larger scores are better.
      method: how the trials were chosen.

    Raises:
      UserError: the trials are not independent, or none has a score.
    """
    if method in DEPENDENT:
        raise UserError(
            f"The best of k trials is not estimated: {DEPENDENT[method]}, so that k of "
            "them are no sample of a search with k trials"
        )
    scores = np.asarray(scores, float)
    is_finite = np.isfinite(scores)
    if not is_finite.any():
        raise UserError("No trial has a finite score")
    sign = 1 if is_max else -1
    values = np.where(is_finite, sign * scores, (sign * scores[is_finite]).min())
    weights = best_weights(len(values))
    random = np.random.default_rng(0)
    drawn = random.integers(len(values), size=(NUM_RESAMPLES, len(values)))
    resampled = np.sort(values[drawn], axis=1) @ weights.T
    ends = sign * np.percentile(resampled, [2.5, 97.5], axis=0)
    low, high = np.sort(ends, axis=0)
    return BestOfK(sign * (weights @ np.sort(values)), low, high)


def best_weights(count: int) -> Float[np.ndarray, "K N"]:
    """Returns the probability that the i-th worst of all is the best of k, [k, i]."""
    k, i = np.mgrid[1 : count + 1, 1 : count + 1].astype(float)

    def log_binomial(n, k):
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    with np.errstate(invalid="ignore"):
        logs = log_binomial(i - 1, k - 1) - log_binomial(float(count), k)
    return np.where(i >= k, np.exp(np.where(i >= k, logs, 0.0)), 0.0)
