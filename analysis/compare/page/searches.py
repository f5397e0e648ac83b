"""Expected best of k trials of each architecture's search, drawn as one chart."""

from analysis.compare.best_of_k import DEPENDENT, expected_best
from analysis.compare.results import BudgetResults, ComparisonResults
from analysis.report.charts import Chart, Series, make_chart
from analysis.report.tables import title_of
from utils.errors import UserError

NOTE = (
    "Expected best validation score of k of the trials, drawn without replacement, "
    "with a 95% bootstrap band (Dodge et al. 2019; Tang et al. 2020). A trial that did "
    "not finish counts as the worst."
)


def sampling_method(points: dict) -> str:
    """Returns how points were chosen, of the JSON object of a sequence of points.

    A part of a product or chain whose trials are not independent decides.
    """
    if "parts" not in points:
        return points["kind"]
    methods = [sampling_method(part) for part in points["parts"]]
    return next((method for method in methods if method in DEPENDENT), methods[0])


def best_of_k_chart(
    budget: BudgetResults, results: ComparisonResults
) -> tuple[Chart | None, str]:
    """Draws the expected best score against the number of trials.

    Returns:
      The chart, and a note, or why there is no chart.
    """
    series = []
    for number, model in enumerate(budget.models):
        points = results.plan.asked["spaces"][model.name]["points"]
        try:
            best = expected_best(
                model.trial_scores,
                is_max=results.sign > 0,
                method=sampling_method(points),
            )
        except UserError as error:
            return None, f"{error}."
        ks = range(1, len(best.expected) + 1)
        curve = list(zip(ks, best.expected.tolist(), strict=True))
        band = list(zip(ks, best.low.tolist(), best.high.tolist(), strict=True))
        series.append(Series(number, model.name, curve, band))
    title = f"validation {title_of(results.metric)}, best of k trials"
    return make_chart(title, "k, trials", series), NOTE
