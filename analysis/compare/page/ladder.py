"""Scores over a ladder of budgets, with scaling laws and where they cross."""

import dataclasses
import itertools

import numpy as np

from analysis.compare.results import ComparisonResults, mean_and_deviation
from analysis.compare.scaling import (
    ScalingLaw,
    back_test,
    find_crossing,
    fit_scaling_law,
)
from analysis.report.charts import Chart, Series, make_chart
from analysis.report.tables import TableRow, title_of
from utils.errors import UserError

LOSS = "loss"  # of which laws are fitted
CURVE_POINTS = 40
NOTE = (
    "Means over the seeds, with a band of one standard deviation. Laws of the loss, "
    "E + A C^-alpha over the budget C (Hoffmann et al. 2022), are fitted to the runs; "
    "with fewer than four budgets E is 0. Intervals are 95%, from resampled residuals. "
    "The back-test predicts the loss at the largest budget from the others."
)


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Charts, laws and crossings of a comparison at several budgets."""

    charts: list[Chart]
    fits: list[TableRow]
    sentences: list[str]  # on the crossings
    note: str


def make_ladder(results: ComparisonResults) -> Ladder | None:
    """Fits laws to the losses of all runs; returns None for a single budget."""
    if len(results.budgets) < 2:
        return None
    laws, fits, reason = {}, [], ""
    for number, name in enumerate(results.names):
        budgets, losses = loss_points(results, number)
        try:
            laws[name] = fit_scaling_law(budgets, losses)
        except UserError as error:
            reason = f" No law of {name}: {error}."
            continue
        fits.append(fit_row(name, laws[name], budgets, losses))
    sentences = [
        f"Scaling laws of {first} and {second}: "
        f"{find_crossing(laws[first], laws[second])}."
        for first, second in itertools.combinations(laws, 2)
    ]
    metrics = dict.fromkeys((results.metric, LOSS))
    charts = [
        ladder_chart(results, metric, laws if metric == LOSS else {})
        for metric in metrics
    ]
    shown = [chart for chart in charts if chart is not None]
    return Ladder(shown, fits, sentences, NOTE + reason)


def loss_points(results: ComparisonResults, number: int) -> tuple[list, list]:
    """Returns budget and loss of each run of a model, given its index."""
    pairs = [
        (budget.plan.target, loss)
        for budget in results.budgets
        for loss in budget.models[number].scores(LOSS)
    ]
    return [budget for budget, _ in pairs], [loss for _, loss in pairs]


def fit_row(name: str, law: ScalingLaw, budgets: list, losses: list) -> TableRow:
    """Formats a law, and the error of its back-test."""
    ends = law.interval(lambda one: one.exponent)
    interval = "{:.3f} to {:.3f}".format(*ends) if ends else ""
    test = ""
    if len(set(budgets)) > 2:
        test = f"{back_test(budgets, losses).relative_error:+.1%}"
    return {
        "model": name,
        "E": f"{law.irreducible:.3g}",
        "A": f"{law.coefficient:.3g}",
        "alpha": f"{law.exponent:.3f}",
        "95% interval of alpha": interval,
        "error of the back-test": test,
    }


def ladder_chart(
    results: ComparisonResults, metric: str, laws: dict[str, ScalingLaw]
) -> Chart | None:
    """Draws the mean of a score on the split, and laws, against the budget."""
    series = []
    for number, name in enumerate(results.names):
        points, band = [], []
        for budget in results.budgets:
            scores = budget.models[number].scores(metric)
            mean, deviation = mean_and_deviation(scores)
            spread = deviation or 0.0
            points.append((budget.plan.target, mean))
            band.append((budget.plan.target, mean - spread, mean + spread))
        law = laws.get(name)
        series.append(Series(number, name, points, band, has_line=law is None))
        if law is not None:
            curve = np.geomspace(*law.measured, CURVE_POINTS)
            fitted = zip(curve.tolist(), law.predict(curve).tolist(), strict=True)
            series.append(Series(number, f"{name}, law", list(fitted), has_marks=False))
    unit = results.format_budget(1).partition(" ")[2]
    title = f"{results.split} {title_of(metric)}"
    return make_chart(title, unit, series, is_log_x=True, format_x="{:.3g}".format)
