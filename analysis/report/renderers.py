"""Formats of a report: an HTML page, Markdown, and JSON for programs.

Equal runs give equal bytes: no format contains the time. The page loads no other file.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from analysis.formatting import render_template
from analysis.report.content import Content, curve_names, run_origin
from analysis.report.label_tables import confusion_rows, sample_rows
from analysis.report.runs import Run, axes
from analysis.report.score_cards import ScoreCard
from analysis.report.sweep_results import SweepResults
from analysis.report.tables import (
    TableRow,
    curve_points,
    curve_rows,
    importance_rows,
    pair_rows,
    seed_rows,
    untested_lines,
)
from utils import strict_json

TEMPLATE = Path(__file__).with_name("page.html.jinja")
# Markdown's special characters; an underscore within a word is none.
MARKDOWN_SPECIAL = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)")
LABEL_TABLES = ("classes", "entities", "confusion")  # keys of a score card
MAX_COLUMNS = 4  # runs that are columns of the table of differences


def render_html(content: Content) -> str:
    """Renders the report as one self-contained HTML page."""
    return render_template(
        TEMPLATE,
        content=content,
        pairs=pair_rows(content.pairs),
        untested=untested_lines(content.pairs),
        seeds=seed_rows(content.systems) if content.has_seeds else [],
        importances=[importance_rows(sweep) for sweep in content.sweeps],
    )


def render_json(content: Content) -> str:
    """Renders the page, without attention maps, as JSON with unrounded numbers."""
    comparison, labels = content.comparison, [run.label for run in content.runs]
    document = {
        "title": comparison.title,
        "split": comparison.split,
        "warnings": content.warnings(),
        "runs": list(map(_run_document, content.runs, comparison.cards)),
        "differences": {
            key: dict(zip(labels, values, strict=True))
            for key, values in comparison.differences
        },
        "systems": [
            {
                "label": system.label,
                "runs": [run.label for run in system.runs],
                "scores": {
                    name: {"mean": mean, "deviation": deviation}
                    for name, (mean, deviation) in system.scores.items()
                },
            }
            for system in content.systems
        ],
        "pairs": [dataclasses.asdict(pair) for pair in content.pairs],
        "sweeps": [
            {
                "directory": str(sweep.path),
                "metric": sweep.metric,
                "direction": sweep.direction,
                "best": sweep.best,
                "importances": sweep.importances,
                "trials": list(sweep.trials),
            }
            for sweep in content.sweeps
        ],
        "effective_context": [
            dataclasses.asdict(context) | {"run": labels[context.run]}
            for context in content.contexts
        ],
        "samples": [dataclasses.asdict(sample) for sample in content.samples],
    }
    return strict_json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _run_document(run: Run, card: ScoreCard) -> dict:
    return {
        "label": run.label,
        **run_origin(run),
        "scores": card.content["scores"],
        **{key: card.content[key] for key in LABEL_TABLES if key in card.content},
        "baselines": card.baselines,
        "scored_step": card.content["step"],
        "protocol": card.content.get("protocol", {}),
        "parameters": run.about.get("parameters"),
        f"{run.unit}_per_second": run.median(f"{run.unit}_per_second"),
        "mfu": run.median("mfu"),
        "peak_memory_bytes": run.peak_memory,
        "trained": {axis: run.cost_at(run.steps, axis) for axis in axes(run.unit)},
        "curves": {
            metric: {axis: curve_points(run, metric, axis) for axis in axes(run.unit)}
            for metric in curve_names([run])
        },
    }


def render_markdown(content: Content) -> str:
    """Renders the report as Markdown."""
    comparison, runs = content.comparison, content.runs
    labels = [run.label for run in runs]
    tested, untested = pair_rows(content.pairs), untested_lines(content.pairs)
    parts = [
        f"# {escape_markdown(comparison.title)}",
        *(f"**Warning:** {escape_markdown(text)}." for text in content.warnings()),
        markdown_table([row.named_cells for row in content.rows]),
        section("Seeds", seed_rows(content.systems) if content.has_seeds else []),
        "## Significance" if tested or untested else "",
        markdown_table(tested),
        *map(escape_markdown, untested),
        *(sweep_section(sweep) for sweep in content.sweeps if sweep.best),
        section("Runs", content.origins),
        section("What differs", _difference_rows(labels, comparison.differences)),
        section("Learning curves", [row for run in runs for row in curve_rows(run)]),
        section("Effective context", _context_rows(content)),
        *label_sections(content),
        section("Samples", _sample_rows(content)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def label_sections(content: Content) -> list[str]:
    """Renders the tables of labels or tags, if the task has any."""
    if content.labels is None:
        return []
    confusions = content.labels.confusions
    titles = [f"Confusions of {content.runs[one.run].label}" for one in confusions]
    tables = map(confusion_rows, confusions)
    return [
        section(content.labels.heading, content.labels.rows),
        *(section(*pair) for pair in zip(titles, tables, strict=True)),
    ]


def section(title: str, rows: Sequence[TableRow]) -> str:
    """Renders a heading and its table, or nothing without rows."""
    return f"## {title}\n\n{markdown_table(rows)}" if rows else ""


def markdown_table(rows: Sequence[TableRow]) -> str:
    """Renders rows as a Markdown table; missing cells are empty."""
    if not rows:
        return ""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    lines = [[escape_markdown(title) for title in titles], ["---"] * len(titles)]
    lines += [[escape_markdown(row.get(title, "")) for title in titles] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Escapes everything that Markdown or HTML would not read as plain text."""
    text = " ".join(str(text).split())
    text = MARKDOWN_SPECIAL.sub(r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def sweep_section(sweep: SweepResults) -> str:
    """Renders the best trial of a sweep and the importance of its keys."""
    best = sweep.best
    return (
        f"## Sweep {escape_markdown(sweep.path.name)}\n\n"
        f"Best by {escape_markdown(sweep.metric)}: trial {best['trial']}, "
        f"{best['value']:.6g} at step {best['step']}, of {len(sweep.done)} trials "
        f"({sweep.cost}). "
        "Importance: by PED-ANOVA (Watanabe et al. 2023); all keys sum to 1."
        f"\n\n{markdown_table(importance_rows(sweep))}"
    ).rstrip()


def _sample_rows(content: Content) -> list[TableRow]:
    labels = [run.label for run in content.runs]
    if content.labels:
        return sample_rows(content.labels, labels)
    return [
        {
            "source": sample.source,
            "reference": sample.reference,
            **dict(zip(labels, sample.hypotheses, strict=True)),
        }
        for sample in content.samples
    ]


def _difference_rows(
    labels: Sequence[str], differences: Sequence[tuple[str, list[str]]]
) -> list[TableRow]:
    """Returns a row for each key, or for each run where there are many runs."""
    if len(labels) <= MAX_COLUMNS:
        return [
            {"key": key, **dict(zip(labels, values, strict=True))}
            for key, values in differences
        ]
    return differences and [
        {"run": label, **{key: values[n] for key, values in differences}}
        for n, label in enumerate(labels)
    ]


def _context_rows(content: Content) -> list[TableRow]:
    return [
        {
            "model": content.runs[context.run].label,
            **{f"r = {ratio}": length for ratio, length in context.lengths.items()},
            "loss, shortest context": f"{context.first[1]:.4f} ({context.first[0]})",
            "loss, longest context": f"{context.last[1]:.4f} ({context.last[0]})",
        }
        for context in content.contexts
    ]
