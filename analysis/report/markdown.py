"""A comparison of runs in Markdown; its first table is a section of docs/results.md."""

import itertools
import re
from collections.abc import Sequence

from analysis.report.content import Content
from analysis.report.tables import (
    TableRow,
    curve_rows,
    importance_rows,
    not_tested,
    pair_rows,
    seed_rows,
)

# An underscore within a word is one.
SIGNS = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)")
FEW = 4  # runs whose samples stand side by side


def render(content: Content) -> str:
    """The whole text; the same runs give the same."""
    parts = [
        f"# {escaped(content.comparison.title)}",
        *(f"**Warning:** {escaped(text)}." for text in content.warnings()),
        table([{"model": row.label, **row.cells} for row in content.rows]),
        section("Seeds", seed_rows(content.systems) if content.has_seeds else []),
        *significance(content),
        *itertools.chain(*(sweep_parts(sweep) for sweep in content.sweeps)),
        section("Runs", content.origins),
        section("What differs", difference_rows(content)),
        section(
            "Learning curves", [r for run in content.runs for r in curve_rows(run)]
        ),
        section("Effective context", context_rows(content)),
        section("Samples", sample_rows(content)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(title: str, rows: Sequence[TableRow]) -> str:
    """A heading and its table, or nothing."""
    return f"## {title}\n\n{table(rows)}" if rows else ""


def significance(content: Content) -> list[str]:
    """What was tested, and why the rest was not."""
    tested, reasons = pair_rows(content.pairs), not_tested(content.pairs)
    if not (tested or reasons):
        return []
    return ["## Significance", table(tested), *map(escaped, reasons)]


def sweep_parts(sweep) -> list[str]:
    """The best trial, and what mattered."""
    if sweep.best is None:
        return []
    best = sweep.best
    return [
        f"## Sweep {escaped(sweep.path.name)}",
        f"Best by {escaped(sweep.metric)}: trial {best['trial']}, "
        f"{best['value']:.6g} at step {best['step']}, of {len(sweep.done)} trials. "
        "Importance: the share of the ranks' variance that a key explains by itself.",
        table(importance_rows(sweep)),
    ]


def difference_rows(content: Content) -> list[TableRow]:
    """A row a key, or a row a run where there are many runs."""
    labels = [run.label for run in content.runs]
    if len(labels) <= FEW:
        return [
            {"key": key, **dict(zip(labels, values, strict=True))}
            for key, values in content.differences
        ]
    if not content.differences:
        return []
    return [
        {"run": label, **{key: values[n] for key, values in content.differences}}
        for n, label in enumerate(labels)
    ]


def context_rows(content: Content) -> list[TableRow]:
    """A row a run of which it was computed."""
    return [
        {
            "model": content.runs[found.run].label,
            **{f"r = {ratio}": length for ratio, length in found.lengths.items()},
            "loss with least": f"{found.first[1]:.4f} ({found.first[0]} tokens)",
            "with most": f"{found.last[1]:.4f} ({found.last[0]} tokens)",
        }
        for found in content.contexts
    ]


def sample_rows(content: Content) -> list[TableRow]:
    """A row a sentence."""
    labels = [run.label for run in content.runs]
    return [
        {
            "source": sample.source,
            "reference": sample.reference,
            **dict(zip(labels, sample.hypotheses, strict=True)),
        }
        for sample in content.samples
    ]


def table(rows: Sequence[TableRow]) -> str:
    """A row a line; what a row has not is empty."""
    if not rows:
        return ""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    lines = [[escaped(title) for title in titles], ["---"] * len(titles)]
    lines += [[escaped(row.get(title, "")) for title in titles] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Nothing in it that Markdown or HTML would read as more than text."""
    text = " ".join(str(text).split())
    text = SIGNS.sub(r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
