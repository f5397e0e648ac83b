"""The table of a report: a row a run, and a row for what needs no learning."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from analysis.report.comparison import Comparison, groups
from analysis.report.runs import Run

SCORES = {  # by name: title, and digits after the point
    "bleu": ("BLEU", 1),
    "bleu_moses_lowercase": ("BLEU, Moses, lower case", 1),
    "chrf": ("chrF", 1),
    "exact_match": ("exact match, %", 1),
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "bits_per_token": ("bits/token", 3),
    "word_perplexity": ("word perplexity", 2),
    "bits_per_character": ("bits/character", 3),
    "bits_per_byte": ("bits/byte", 3),
}
INTERVALS = {"bleu": "95% interval", "loss": "95% interval of the loss"}  # titles
COSTS = (  # titles
    *("parameters", "tokens/s", "mfu", "peak memory, MiB"),
    *("training FLOPs", "training time", "steps", "scored step"),
)
BASELINES = {
    "copy": "copy the source",
    "nearest_neighbour": "nearest neighbour",
    "unigram": "unigram",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      run: its number; None for a baseline.
      cells: text by title, the same titles in every row.
    """

    label: str
    run: int | None
    cells: dict[str, str]


def score_rows(comparison: Comparison) -> list[Row]:
    """The runs, then the baselines; a column that no row would fill is left out."""
    runs, scored = comparison.runs, comparison.scored
    known = list(SCORES)
    other = {name for one in scored for name in one.card["scores"]} - set(known)
    names = known + sorted(other)
    rows = [
        Row(run.label, number, run_cells(run, scored[number].card, names))
        for number, run in enumerate(runs)
    ]
    blank = dict.fromkeys(rows[0].cells, "")
    for label, values in baselines(comparison):
        rows.append(Row(label, None, blank | score_cells(values, names)))
    filled = [title for title in blank if any(row.cells[title] for row in rows)]
    return [
        dataclasses.replace(row, cells={title: row.cells[title] for title in filled})
        for row in rows
    ]


def run_cells(run: Run, card: dict, names: Sequence[str]) -> dict[str, str]:
    """What is told of a run, by title."""
    scores = {name: score["value"] for name, score in card["scores"].items()}
    return score_cells(scores, names, card["scores"]) | {
        "parameters": _told(run.about.get("parameters"), "{:,}".format),
        "tokens/s": _told(run.tokens_per_second, "{:,.0f}".format),
        "mfu": _told(run.mfu, "{:.0%}".format),
        "peak memory, MiB": _told(run.peak_memory, lambda size: f"{size / 2**20:,.0f}"),
        "training FLOPs": _told(flops(run), "{:.2e}".format),
        "training time": _told(run.seconds, duration),
        "steps": _told(run.steps, "{:,}".format),
        "scored step": f"{card['step']:,}",
    }


def score_cells(
    scores: dict[str, float], names: Sequence[str], intervals: dict | None = None
) -> dict[str, str]:
    """Scores as text, by title, blank where there is none.

    Args:
      intervals: by score, may have the `low` and the `high`.
    """
    cells = {}
    for name in names:
        title, digits = SCORES.get(name, (name.replace("_", " "), 3))
        cells[title] = number(scores[name], digits) if name in scores else ""
        if name in INTERVALS:
            found = (intervals or {}).get(name, {})
            ends = [
                number(found[end], digits)
                for end in ("low", "high")
                if found.get(end) is not None
            ]
            cells[INTERVALS[name]] = " to ".join(ends) if len(ends) == 2 else ""
    return cells


def flops(run: Run) -> float | None:
    """Of all its training, where that is known."""
    return run.spent.at(run.steps, "flops") if run.spent else None


def baselines(comparison: Comparison) -> list[tuple[str, dict[str, float]]]:
    """Names and scores; a baseline not the same for all runs says whose it is."""

    def values(run: Run, name: str) -> tuple[tuple[str, float], ...]:
        card = run.scored[comparison.split].card
        return tuple(sorted(card.get("baselines", {}).get(name, {}).items()))

    there = {
        name for one in comparison.scored for name in one.card.get("baselines", {})
    }
    found = []
    for name in [*BASELINES, *sorted(there - set(BASELINES))]:
        kinds = groups(comparison.runs, lambda run, name=name: values(run, name))
        for scores, labels in kinds.items():
            label = BASELINES.get(name, name.replace("_", " "))
            if len(kinds) > 1:
                label += f" ({', '.join(labels)})"
            if scores:
                found.append((label, dict(scores)))
    return found


def number(value: float, digits: int) -> str:
    """With so many digits after the point; a huge one with three in all."""
    huge = math.isfinite(value) and abs(value) >= 1e6
    return f"{value:.2e}" if huge else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Such as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def plain_table(rows: Sequence[Row]) -> str:
    """The rows for a console: labels to the left, numbers to the right."""
    head = ["model", *rows[0].cells]
    table = [head, *([row.label, *row.cells.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for label, *cells in table:
        parts = [label.ljust(widths[0])]
        parts += [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _told(value, how: Callable) -> str:
    return "" if value is None else how(value)
