"""Formats of the page of a comparison: HTML, Markdown, and JSON for programs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from analysis.compare.page.content import Content
from analysis.compare.results import BudgetResults, ComparisonResults
from analysis.formatting import render_template
from analysis.report.renderers import escape_markdown, section
from analysis.report.runs import axes
from utils import strict_json

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render_html(content: Content) -> str:
    """Renders one self-contained HTML page."""
    return render_template(TEMPLATE, content=content)


def render_markdown(content: Content) -> str:
    """Renders the page as Markdown, without charts."""
    parts = [f"# {escape_markdown(content.title)}"]
    parts += [f"**Warning:** {escape_markdown(text)}." for text in content.warnings]
    for corpus in content.corpora:
        if len(content.corpora) > 1:
            parts.append(f"# {escape_markdown(corpus.title)}")
        parts.append("\n".join(f"- {escape_markdown(x)}" for x in corpus.sentences))
        for budget in corpus.budgets:
            parts.append(
                section(f"Scores, {escape_markdown(budget.text)}", budget.rows)
            )
        parts.append(escape_markdown(corpus.score_note))
        parts.append(section("Best points", corpus.points))
        parts.append(section("Differences", corpus.differences))
        if corpus.differences:
            parts.append(escape_markdown(corpus.difference_note))
        if corpus.ladder:
            parts.append(section("Scaling", corpus.ladder.fits))
            parts.append(escape_markdown(corpus.ladder.note))
        parts.append(section("Cost to reach a score", corpus.costs))
        parts.append(escape_markdown(corpus.cost_note))
        parts.append(section("Spaces", corpus.spaces))
        parts.append(escape_markdown(corpus.space_note))
        runs = [{"run": run.text, **run.cells} for run in corpus.runs]
        parts.append(section("Runs", runs))
    return "\n\n".join(part for part in parts if part) + "\n"


def render_json(content: Content, results: Sequence[ComparisonResults]) -> str:
    """Renders results and verdicts as JSON with unrounded numbers."""
    document = {
        "title": content.title,
        "warnings": content.warnings,
        "comparisons": [
            {
                "directory": str(one.folder.path),
                "corpus": one.corpus,
                "split": one.split,
                "metric": dataclasses.asdict(one.plan.metric),
                "asked": {k: v for k, v in one.plan.asked.items() if k != "configs"},
                "verdict": page.sentences,
                "budgets": [budget_document(b, one) for b in one.budgets],
            }
            for one, page in zip(results, content.corpora, strict=True)
        ],
    }
    return strict_json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def budget_document(budget: BudgetResults, results: ComparisonResults) -> dict:
    """Returns the results at one budget as JSON."""
    unit = budget.runs[0].unit
    return {
        "target": budget.plan.target,
        "models": {
            model.name: {
                "cost": model.plan.costs[model.best["trial"]],
                "trials": model.trial_scores,
                "best": model.best,
                "runs": [
                    {
                        "directory": str(run.path),
                        "seed": run.config["seed"],
                        "parameters": run.about.get("parameters"),
                        "scores": run.results[results.split].values,
                        "trained": {a: run.cost_at(run.steps, a) for a in axes(unit)},
                    }
                    for run in model.runs
                ],
            }
            for model in budget.models
        },
    }
