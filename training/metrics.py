"""Metrics as pairs (sum, weight): merging is addition, only the end divides."""

import math

import jax

WeightedMetrics = dict[str, tuple[jax.Array, jax.Array]]
Totals = dict[str, tuple[float, float]]


def merge(totals: Totals, pairs: WeightedMetrics) -> Totals:
    """Totals with one step's pairs, which are numbers by now, on top."""
    sums = dict(totals)
    for name, (value, weight) in pairs.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + float(value), before[1] + float(weight))
    return sums


def compute(totals: Totals) -> dict[str, float]:
    """The mean of each metric; nan where nothing was weighed."""
    return {
        name: value / weight if weight else math.nan
        for name, (value, weight) in totals.items()
    }
