"""Performance profiles of architectures over several corpora.

The profile of an architecture (Dolan and Moré 2002, "Benchmarking optimization software
with performance profiles", equation 2.1) is the fraction of corpora on which its score
is within a factor of the best one.
"""

import math
from collections.abc import Mapping, Sequence

from analysis.compare.results import ComparisonResults, mean_and_deviation
from analysis.report.charts import Series

MARGIN = 1.05  # of the largest factor, so that the last step is seen


def performance_ratios(
    scores: Mapping[str, Sequence[float]], signs: Sequence[int]
) -> dict[str, list[float]]:
    """Returns each architecture's factor from the best score on each corpus.

    Args:
      scores: positive scores by architecture, in the order of the corpora; nan where
        an architecture has none, which counts as an infinite factor.
      signs: 1 for a corpus where larger scores are better, or -1.
    """
    ratios: dict[str, list[float]] = {name: [] for name in scores}
    for number, sign in enumerate(signs):
        column = {name: values[number] for name, values in scores.items()}
        known = [score for score in column.values() if not math.isnan(score)]
        best = max(known, key=lambda score: sign * score, default=math.nan)
        for name, score in column.items():
            if math.isnan(score):
                ratios[name].append(math.inf)
                continue
            pair = (best, score) if sign > 0 else (score, best)
            ratio = pair[0] / pair[1] if pair[1] > 0 else float("inf")
            ratios[name].append(1.0 if score == best else ratio)
    return ratios


def step_points(ratios: Sequence[float], end: float) -> list[tuple[float, float]]:
    """Returns the corners of a profile from the factor 1 to `end`."""
    points, count = [(1.0, 0.0)], 0
    for ratio in sorted(ratios):
        if ratio > end:
            break
        points.append((ratio, count / len(ratios)))
        count += 1
        points.append((ratio, count / len(ratios)))
    return [*points, (end, count / len(ratios))]


def performance_profiles(results: Sequence[ComparisonResults]) -> list[Series]:
    """Returns the profile of each architecture, at the last budget of each corpus."""
    scores = {
        name: [
            mean_and_deviation(one.budgets[-1].models[n].scores(one.metric))[0]
            for one in results
        ]
        for n, name in enumerate(results[0].names)
    }
    ratios = performance_ratios(scores, [one.sign for one in results])
    finite = [x for row in ratios.values() for x in row if x < float("inf")]
    end = max(finite, default=1.0) * MARGIN
    return [
        Series(n, name, step_points(row, end), has_marks=False)
        for n, (name, row) in enumerate(ratios.items())
    ]
