"""Metrics as pairs (sum, weight): merging is addition, only the end divides."""

import math
from collections.abc import Iterable

import jax

Pairs = dict[str, tuple[jax.Array, jax.Array]]


def merged(parts: Iterable[Pairs]) -> dict[str, float]:
    """The mean of each metric over all parts; nan where nothing was weighed."""
    totals: dict[str, tuple[float, float]] = {}
    for part in jax.device_get(list(parts)):
        for name, (value, weight) in part.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + float(value), before[1] + float(weight))
    return {
        name: value / weight if weight else math.nan
        for name, (value, weight) in totals.items()
    }


def total_weight(parts: Iterable[Pairs], name: str) -> float:
    """The weight behind a metric: for the loss, how many tokens were predicted."""
    return sum(float(part[name][1]) for part in jax.device_get(list(parts)))
