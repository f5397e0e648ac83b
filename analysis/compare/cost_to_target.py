"""Cost of training until a target score, where some runs never reach it.

A run that does not reach the target is right-censored: its cost is more than all that
it spent. The distribution over runs is estimated by Kaplan and Meier (1958), so that
the median is known although some runs fail, and unknown where half of them do.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import CensoredData, ecdf


@dataclasses.dataclass(frozen=True)
class CostToTarget:
    """Costs of several runs until a target, in seconds, tokens or FLOPs.

    Attributes:
      costs: cost until the first evaluation at or beyond the target; for a run that
        does not reach it, the cost of all its evaluations.
      is_observed: whether each run reached the target.
      median: estimated median; None: too few runs reached the target.
    """

    costs: Float[np.ndarray, "R"]
    is_observed: np.ndarray
    median: float | None

    def __str__(self):
        runs = f"{self.is_observed.sum()} of {len(self.costs)} runs"
        if self.median is None:
            return f"not reached ({runs}, most spent {self.costs.max():.3g})"
        return f"{self.median:.3g} ({runs})"


def cost_to_target(
    curves: Sequence[Sequence[tuple[float, float]]], target: float, *, is_max: bool
) -> CostToTarget:
    """Returns the cost until a target, from learning curves.

    Args:
      curves: pairs (cost, score) of each run's evaluations, in order of cost; scores
        that are not finite do not reach any target.
      is_max: whether larger scores are better.

    Raises:
      ValueError: there is no curve, or one without an evaluation.
    """
    if not (curves and all(map(len, curves))):
        raise ValueError("each run needs a learning curve with an evaluation")
    costs, is_observed = [], []
    for curve in curves:
        hits = [
            cost
            for cost, score in curve
            if np.isfinite(score) and (score >= target if is_max else score <= target)
        ]
        costs.append(min(hits) if hits else max(cost for cost, _ in curve))
        is_observed.append(bool(hits))
    costs, is_observed = np.asarray(costs, float), np.asarray(is_observed)
    return CostToTarget(costs, is_observed, _median(costs, is_observed))


def _median(costs: Float[np.ndarray, "R"], is_observed: np.ndarray) -> float | None:
    if not is_observed.any():
        return None
    data = CensoredData(uncensored=costs[is_observed], right=costs[~is_observed])
    survival = ecdf(data).sf
    below = survival.quantiles[survival.probabilities <= 0.5 + 1e-9]
    return float(below[0]) if below.size else None
