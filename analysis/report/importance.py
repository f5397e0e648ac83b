"""Which hyper-parameters of a sweep mattered: an analysis of variance of ranks.

The values of the objective are replaced by their ranks, so that one trial that went
astray does not decide. The importance of a key is the share of the ranks' variance
that lies between groups of trials with like values of that key, less what chance
would put there (epsilon squared; Kelley 1935, of the ranks as in Kruskal and Wallis
1952). It is that of a key by itself: what only two keys together do is not in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST = 4  # groups of a number's values, of as many trials each
LEAST = 4  # trials, of which anything can be said

Point = Mapping[str, Any]


def importances(
    points: Sequence[Point], values: Sequence[float]
) -> dict[str, float | None]:
    """By key, the most important first; None where there are too few trials.

    Args:
      values: of the objective, one a point.
    """
    keys = dict.fromkeys(key for point in points for key in point)
    found = {}
    for key in keys:
        having = [n for n, point in enumerate(points) if key in point]
        groups = grouped([points[n][key] for n in having])
        found[key] = explained(groups, ranks([values[n] for n in having]))
    return dict(sorted(found.items(), key=lambda item: -(item[1] or 0.0)))


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 0 on; equal values share the mean of theirs."""
    values = np.asarray(values, float)
    below = (values[:, None] > values).sum(axis=1)
    equal = (values[:, None] == values).sum(axis=1)
    return below + (equal - 1) / 2


def grouped(settings: Sequence[Any]) -> list[int]:
    """The number of each setting's group: of equals, or of a quarter of the range."""
    kinds = list(dict.fromkeys(map(repr, settings)))
    numbers = all(type(one) in (int, float) for one in settings)
    if len(kinds) <= MOST or not numbers:
        return [kinds.index(repr(one)) for one in settings]
    order = ranks(settings)
    return [int(rank * MOST / len(settings)) for rank in order]


def explained(groups: Sequence[int], values: np.ndarray) -> float | None:
    """The share of the variance that lies between the groups, at least 0."""
    count, kinds = len(groups), sorted(set(groups))
    if count < LEAST or count <= len(kinds) or len(kinds) < 2:
        return None
    whole = values.var() * count
    if whole == 0:
        return 0.0
    groups = np.asarray(groups)
    parts = [values[groups == kind] for kind in kinds]
    within = sum(part.var() * len(part) for part in parts)
    share = 1 - (within / (count - len(kinds))) / (whole / (count - 1))
    return float(max(0.0, share))
