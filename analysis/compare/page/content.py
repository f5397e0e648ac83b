"""Content of the page of a comparison, computed once for all of its formats."""

import dataclasses
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from analysis.compare.cost_to_target import cost_to_target
from analysis.compare.page.differences import (
    difference_rows,
    find_all,
    verdict_sentences,
)
from analysis.compare.page.ladder import Ladder, make_ladder
from analysis.compare.page.profiles import performance_profiles
from analysis.compare.page.searches import best_of_k_chart
from analysis.compare.results import (
    BudgetResults,
    ComparisonResults,
    ModelResults,
    TrialRun,
    mean_and_deviation,
)
from analysis.report.charts import Chart, Series, make_chart
from analysis.report.runs import axes
from analysis.report.tables import (
    TableRow,
    axis_unit,
    curve_points,
    curve_title,
    format_cost,
    format_duration,
    format_score,
    title_of,
)
from sweeps.trial_configs import format_point, format_value
from utils import strict_json
from utils.errors import UserError
from utils.paths import is_remote

DIFFERENCE_NOTE = (
    "Differences of the mean scores over seeds. The intervals and p values take the "
    "spread of seeds and that of test sentences into account; corrected p values "
    "(Holm 1979) are for all pairs together. Up to 0.05 two architectures differ."
)
KNOCKOUT_PAGE = "knockout.html"  # of analysis/knockout


@dataclasses.dataclass(frozen=True)
class LinkedRun:
    """Run directory with a link to it."""

    link: str
    text: str
    cells: TableRow


@dataclasses.dataclass(frozen=True)
class BudgetTable:
    """Scores and costs of all architectures at one budget."""

    text: str
    rows: list[TableRow]


@dataclasses.dataclass(frozen=True)
class CorpusContent:
    """Everything that a page shows of one comparison."""

    title: str
    corpus: str
    sentences: list[str]
    budgets: list[BudgetTable]
    score_note: str
    points: list[TableRow]
    differences: list[TableRow]  # of which none are tested where the sentences say so
    difference_note: str
    ladder: Ladder | None
    best_of_k: tuple[Chart | None, str]  # with a note, or why there is none
    budget_note: str  # of what is shown of the last budget alone
    curves: list[Chart]
    costs: list[TableRow]
    cost_note: str
    spaces: list[TableRow]
    space_note: str
    knockouts: list[tuple[str, str]]
    runs: list[LinkedRun]
    report_command: str


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a page shows, computed once for all formats."""

    title: str
    names: list[str]
    warnings: list[str]
    corpora: list[CorpusContent]
    profiles: Chart | None


def make_content(
    results: Sequence[ComparisonResults], output: Path, smallest: float | None = None
) -> Content:
    """Computes the content of a page.

    Args:
      results: comparisons of the same architectures, each of another corpus.
      output: path of the page, which links are relative to.
      smallest: smallest difference of interest, for the verdict.

    Raises:
      UserError: the comparisons have other architectures, or the same corpus.
    """
    first, *others = results
    for other in others:
        if other.names != first.names:
            raise UserError(
                f"{first.folder.path} compares {', '.join(first.names)}, and "
                f"{other.folder.path} {', '.join(other.names)}: compare the same"
            )
    corpora = [one.corpus for one in results]
    if len(set(corpora)) < len(corpora):
        raise UserError(f"{', '.join(corpora)}: each --workdir needs another corpus")
    contents = [corpus_content(one, output, smallest) for one in results]
    title = f"{', '.join(first.names)} on {', '.join(corpora)}"
    profiles = performance_profiles(results) if others else []
    chart = make_chart("performance profiles", "factor of the best score", profiles)
    return Content(title, first.names, warnings(results), contents, chart)


def warnings(results: Sequence[ComparisonResults]) -> list[str]:
    """Lists what makes results incomplete."""
    lines = []
    for one in results:
        if not one.is_complete:
            lines.append(
                f"{one.folder.path} is incomplete: the same command resumes it"
            )
        for budget in one.budgets:
            for model in budget.models:
                missing = len(model.plan.points) - len(model.search.done)
                if missing:
                    lines.append(
                        f"{missing} of {len(model.plan.points)} trials of {model.name} "
                        f"at {budget.plan.name} did not finish"
                    )
    return lines


def corpus_content(
    results: ComparisonResults, output: Path, smallest: float | None = None
) -> CorpusContent:
    """Computes what a page shows of one comparison."""
    title = title_of(results.metric)
    runs = [linked_run(run, output) for run in results.trial_runs]
    found, ladder = find_all(results), make_ladder(results)
    target = reference_score(results.budgets[-1], results)
    sweeps = ",".join(str(sweep.path) for sweep in results.sweeps)
    return CorpusContent(
        title=f"{', '.join(results.names)} on {results.corpus}",
        corpus=results.corpus,
        budgets=[
            BudgetTable(
                results.format_budget(budget.plan.target),
                [score_row(model, results) for model in budget.models],
            )
            for budget in results.budgets
        ],
        score_note=(
            f"{results.split} {title}: mean ± sample standard deviation over runs of "
            "the best point with seeds that no trial had, each scored once. Training "
            "FLOPs and time are means of these runs, without evaluation."
        ),
        points=point_rows(results),
        sentences=[
            *verdict_sentences(found, results.corpus, results.metric, smallest),
            *(ladder.sentences if ladder else ()),
        ],
        differences=difference_rows(found, results.metric),
        difference_note=DIFFERENCE_NOTE,
        ladder=ladder,
        best_of_k=best_of_k_chart(results.budgets[-1], results),
        budget_note=" At the last budget." if len(results.budgets) > 1 else "",
        curves=curve_charts(results.budgets[-1], results),
        costs=cost_rows(results.budgets[-1], results, target),
        cost_note=(
            f"Median training cost until validation {title} first is "
            f"{format_score(target, results.metric)} or better, the mean best score "
            "of the worst architecture. Seeds that do not reach it count as censored "
            "(Kaplan and Meier 1958)."
        ),
        spaces=[row for budget in results.budgets[:1] for row in space_rows(results)],
        space_note=(
            f"{results.asked_text}. All trials of an architecture take the budget "
            "within 1%, of seconds within 10%."
        ),
        knockouts=knockout_links(results, output),
        runs=runs,
        report_command=f"python report.py --runs={sweeps}",
    )


def score_row(model: ModelResults, results: ComparisonResults) -> TableRow:
    """Formats the best point, the costs and the scores of an architecture."""
    metric, title = results.metric, title_of(results.metric)
    mean, deviation = mean_and_deviation(model.scores(metric))
    flops = [run.cost_at(run.steps, "flops") for run in model.runs]
    seconds = [run.seconds for run in model.runs if run.seconds is not None]
    known = [x for x in flops if x is not None]
    cells = [format_score(x, metric) for x in (mean, deviation)]
    return {
        "model": model.name,
        "parameters": f"{model.runs[0].about.get('parameters', 0):,}",
        "training FLOPs": f"{statistics.fmean(known):.2e}" if known else "",
        "training time": format_duration(statistics.fmean(seconds)) if seconds else "",
        f"validation {title}, best trial": format_score(model.best["value"], metric),
        f"{results.split} {title}": " ± ".join(filter(None, cells)),
        "seeds": str(len(model.runs)),
    }


def point_rows(results: ComparisonResults) -> list[TableRow]:
    """Formats the best point of each architecture, a row for each key."""
    rows = []
    for budget in results.budgets:
        points = {model.name: model.best["point"] for model in budget.models}
        for key in dict.fromkeys(key for point in points.values() for key in point):
            row = {"key": key} | {
                name: format_value(point[key]) if key in point else ""
                for name, point in points.items()
            }
            if len(results.budgets) > 1:
                row["budget"] = results.format_budget(budget.plan.target)
            rows.append(row)
    return rows


def reference_score(budget: BudgetResults, results: ComparisonResults) -> float:
    """Returns the mean best validation score of the worst architecture."""
    scores = [
        model.best_validation(results.metric, results.sign) for model in budget.models
    ]
    return min(scores, key=lambda score: results.sign * score)


def curve_charts(budget: BudgetResults, results: ComparisonResults) -> list[Chart]:
    """Draws the validation score of all runs against each kind of cost."""
    unit = budget.runs[0].unit
    charts = []
    for axis in axes(unit):
        points = [
            (n, run.label, curve_points(run, results.metric, axis))
            for n, model in enumerate(budget.models)
            for run in model.runs
        ]
        largest = max((x for *_, curve in points for x, _ in curve), default=0)
        size, x_title = axis_unit(largest, axis)
        series = [
            Series(n, label, [(x / size, y) for x, y in curve])
            for n, label, curve in points
        ]
        charts.append(
            make_chart(curve_title(results.metric, unit), x_title, series, x_start=0)
        )
    return [chart for chart in charts if chart is not None]


def cost_rows(
    budget: BudgetResults, results: ComparisonResults, target: float
) -> list[TableRow]:
    """Formats the cost of each architecture until it reaches a validation score."""
    rows = []
    for model in budget.models:
        row = {"model": model.name}
        for axis, title in axes(budget.runs[0].unit).items():
            curves = [curve_points(run, results.metric, axis) for run in model.runs]
            if all(curves):  # costs are known
                cost = cost_to_target(curves, target, is_max=results.sign > 0)
                seeds = f"{cost.is_observed.sum()} of {len(curves)} seeds"
                known = cost.median is not None
                text = format_cost(cost.median, axis) if known else "not reached"
                row[title] = f"{text} ({seeds})"
        rows.append(row)
    return rows


def space_rows(results: ComparisonResults) -> list[TableRow]:
    """Formats the range of each key in the space of each architecture."""
    return [
        {"model": model, "key": key, "values": text}
        for model, document in results.plan.asked["spaces"].items()
        for key, text in describe_space(document["points"])
    ]


def describe_space(points: dict) -> list[tuple[str, str]]:
    """Describes a sequence of points, as `PointSequence.to_dict` returns it."""
    if "ranges" in points:
        return [(key, describe_range(within)) for key, within in points["ranges"]]
    if "parts" in points:
        return [row for part in points["parts"] for row in describe_space(part)]
    values: dict[str, list] = {}
    for point in points["points"]:
        for key, value in point.items():
            values.setdefault(key, []).append(value)
    return [
        (key, ", ".join(map(format_value, dict.fromkeys(map(_hashable, column)))))
        for key, column in values.items()
    ]


def describe_range(within: dict) -> str:
    """Describes a distribution, as `dataclasses.asdict` returns it with its kind."""
    if "values" in within:
        return f"one of {', '.join(map(format_value, within['values']))}"
    is_log = within["kind"] == "LogUniform" or within.get("log")
    kind = "integers, " if within["kind"] == "Integers" else ""
    scale = "log-uniform" if is_log else "uniform"
    ends = f"{format_value(within['low'])} to {format_value(within['high'])}"
    return f"{ends} ({kind}{scale})"


def _hashable(value):
    return strict_json.dumps(value) if isinstance(value, list | dict) else value


def knockout_links(results: ComparisonResults, output: Path) -> list[tuple[str, str]]:
    """Finds the pages of analysis/knockout in the folder of the comparison."""
    if is_remote(results.folder.path):
        return []
    pages = sorted(results.folder.path.rglob(KNOCKOUT_PAGE))
    return [
        (relative_link(page, output), str(page.relative_to(results.folder.path).parent))
        for page in pages
    ]


def linked_run(run: TrialRun, output: Path) -> LinkedRun:
    """Links a run directory, with its point, state and score."""
    trial = run.trial
    value = trial.get("value")
    cells = {
        "state": trial["state"],
        "validation": "" if value is None else f"{value:.6g}",
        "point": format_point(trial.get("point") or {}),
    }
    return LinkedRun(relative_link(run.path, output), run.name, cells)


def relative_link(path: Path, output: Path) -> str:
    """Returns the address of a path, relative to the page if both are local."""
    if is_remote(path):
        return str(path)
    parent = os.path.abspath(output.expanduser().parent)
    return quote(os.path.relpath(os.path.abspath(path), parent))
