"""Tables of a report as text, and its learning curves as coordinates of SVG charts."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from analysis.report.comparison import Comparison, System, SystemPair, group_labels
from analysis.report.runs import AXES, Run
from analysis.report.score_cards import ScoreCard
from analysis.report.sweep_results import SweepResults

TableRow = dict[str, str]  # text by column title

SCORES = {  # title and number of decimals by name
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
MAX_CURVE_ROWS = 8  # validations listed of a learning curve

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 14, 44  # margins

UNITS = {  # titles of an axis in powers of 1000
    "tokens": [
        f"training tokens, {unit}" for unit in ("thousands", "millions", "billions")
    ],
    "flops": [f"training {prefix}FLOPs" for prefix in "KMGTPEZ"],
}

Tick = tuple[float, str]  # coordinate and label
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table of scores.

    Attributes:
      run: its index; None for a baseline.
      cells: text by title, the same titles in every row.
    """

    label: str
    run: int | None
    cells: TableRow

    def select(self, is_wanted: Callable[[str], bool]) -> "Row":
        """Returns the row with some of its columns."""
        cells = {title: cell for title, cell in self.cells.items() if is_wanted(title)}
        return dataclasses.replace(self, cells=cells)


def score_rows(comparison: Comparison) -> list[Row]:
    """Returns the runs, then the baselines, without empty columns."""
    cards = comparison.cards
    other = {name for card in cards for name in card.values} - set(SCORES)
    names = [*SCORES, *sorted(other)]
    rows = [
        Row(run.label, number, run_cells(run, cards[number], names))
        for number, run in enumerate(comparison.runs)
    ]
    blank = dict.fromkeys(rows[0].cells, "")
    for label, values in baselines(comparison):
        rows.append(Row(label, None, blank | score_cells(values, names)))
    filled = {title for title in blank if any(row.cells[title] for row in rows)}
    return [row.select(lambda title: title in filled) for row in rows]


def run_cells(run: Run, card: ScoreCard, names: Sequence[str]) -> TableRow:
    """Formats the scores and costs of a run, by title."""
    memory = None if run.peak_memory is None else run.peak_memory / 2**20
    costs = {
        "parameters": (run.about.get("parameters"), "{:,}".format),
        "tokens/s": (run.median("tokens_per_second"), "{:,.0f}".format),
        "mfu": (run.median("mfu"), "{:.0%}".format),
        "peak memory, MiB": (memory, "{:,.0f}".format),
        "training FLOPs": (run.total_cost("flops"), "{:.2e}".format),
        "training time": (run.seconds, format_duration),
        "steps": (run.steps, "{:,}".format),
        "scored step": (card.content["step"], "{:,}".format),
    }
    return score_cells(card.values, names, card.content["scores"]) | {
        title: "" if value is None else formatter(value)
        for title, (value, formatter) in costs.items()
    }


def score_cells(
    scores: dict[str, float], names: Sequence[str], intervals: dict | None = None
) -> TableRow:
    """Formats scores by title, blank where one is missing.

    Args:
      intervals: by score; each may have `low` and `high`.
    """
    cells = {}
    for name in names:
        cells[title_of(name)] = (
            format_score(scores[name], name) if name in scores else ""
        )
        if name in INTERVALS:
            interval = (intervals or {}).get(name, {})
            ends = [interval.get(end) for end in ("low", "high")]
            cells[INTERVALS[name]] = (
                "" if None in ends else " to ".join(format_score(x, name) for x in ends)
            )
    return cells


def baselines(comparison: Comparison) -> list[tuple[str, dict[str, float]]]:
    """Returns labels and scores; a baseline that differs between runs names them."""

    def values(run: Run, name: str) -> tuple[tuple[str, float], ...]:
        scores = run.results[comparison.split].baselines
        return tuple(sorted(scores.get(name, {}).items()))

    names = {name for card in comparison.cards for name in card.baselines}
    rows = []
    for name in [*BASELINES, *sorted(names - set(BASELINES))]:
        groups = group_labels(comparison.runs, lambda run, name=name: values(run, name))
        for scores, labels in groups.items():
            label = BASELINES.get(name, name.replace("_", " "))
            if len(groups) > 1:
                label += f" ({', '.join(labels)})"
            if scores:
                rows.append((label, dict(scores)))
    return rows


def format_console_table(rows: Sequence[Row]) -> str:
    """Formats the rows for a console: labels aligned left, numbers right."""
    head = ["model", *rows[0].cells]
    table = [head, *([row.label, *row.cells.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for label, *cells in table:
        parts = [label.ljust(widths[0])]
        parts += [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def seed_rows(systems: Sequence[System]) -> list[TableRow]:
    """Formats mean and standard deviation over the seeds, a row for each system."""
    present = dict.fromkeys(name for system in systems for name in system.scores)
    names = dict.fromkeys([*(name for name in SCORES if name in present), *present])
    rows = []
    for system in systems:
        row = {"system": system.label, "seeds": ", ".join(map(str, system.seeds))}
        for name in names:
            values = [x for x in system.scores.get(name, ()) if x is not None]
            row[title_of(name)] = " ± ".join(format_score(x, name) for x in values)
        rows.append(row)
    return rows


def pair_rows(pairs: Sequence[SystemPair]) -> list[TableRow]:
    """Formats a row for each tested score; the first of a pair names the systems."""
    rows = []
    for pair in pairs:
        systems = f"{pair.first} and {pair.second}"
        for name, test in pair.tested.items():
            digits = num_decimals(name) + 1
            bootstrap = test.bootstrap
            row = {
                "systems": systems,
                "score": title_of(name),
                "difference": f"{test.difference:+.{digits}f}",
                "bootstrap p": "too few" if bootstrap is None else f"{bootstrap:.4f}",
                "randomisation p": f"{test.randomisation:.4f}",
                "95% interval": " to ".join(f"{x:+.{digits}f}" for x in test.interval),
            }
            rows.append(row)
            systems = ""
    return rows


def untested_lines(pairs: Sequence[SystemPair]) -> list[str]:
    """Formats each reason why scores were not tested, with the pairs it applies to."""
    reasons: dict[str, list[str]] = {}
    for pair in pairs:
        for reason in pair.left_out:
            reasons.setdefault(reason, []).append(f"{pair.first} and {pair.second}")
    return [
        f"Not tested ({'; '.join(names) if len(names) < len(pairs) else 'all pairs'}): "
        f"{reason}."
        for reason, names in reasons.items()
    ]


def importance_rows(sweep: SweepResults) -> list[TableRow]:
    """Formats the importance of each key that the trials vary."""
    return [
        {
            "key": key,
            "importance": "too few trials" if share is None else f"{share:.2f}",
            "best trial": str(sweep.best["point"].get(key, "")),
        }
        for key, share in sweep.importances.items()
    ]


def curve_rows(run: Run) -> list[TableRow]:
    """Formats some validations of a run, evenly spaced and with the last one."""
    lines = run.metrics.get("validation", [])
    count = min(MAX_CURVE_ROWS, len(lines))
    chosen = [lines[(i + 1) * len(lines) // count - 1] for i in range(count)]
    rows = []
    for line in chosen:
        row = {"run": run.label, "step": f"{line['step']:,}"}
        for axis in list(AXES)[1:]:
            cost = run.cost.at(line["step"], axis) if run.cost else None
            row[AXES[axis]] = "" if cost is None else format_cost(cost, axis)
        for name in filter(line.__contains__, SCORES):
            value = line[name]
            row[title_of(name)] = (
                "not finite" if value is None else format_score(value, name)
            )
        rows.append(row)
    return rows


def title_of(name: str) -> str:
    """Returns the column title of a score."""
    return SCORES[name][0] if name in SCORES else name.replace("_", " ")


def num_decimals(name: str) -> int:
    """Returns the number of decimals of a score."""
    return SCORES[name][1] if name in SCORES else 3


def format_score(value: float, name: str) -> str:
    """Formats a score with its number of decimals."""
    return format_number(value, num_decimals(name))


def format_number(value: float, digits: int) -> str:
    """Formats with a number of decimals; from a million on with three digits in all."""
    is_huge = math.isfinite(value) and abs(value) >= 1e6
    return f"{value:.2e}" if is_huge else f"{value:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """Formats seconds such as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_cost(value: float, axis: str) -> str:
    """Formats tokens, seconds or FLOPs of training."""
    if axis == "seconds":
        return format_duration(value)
    return f"{value:.3g}" if axis == "flops" else f"{value:,.0f}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """The points of one run in coordinates of the chart."""

    run: int
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of WIDTH by HEIGHT with its origin in the upper left corner."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    width = WIDTH
    height = HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def curve_points(run: Run, metric: str, axis: str) -> list[Point]:
    """Returns a metric of the validation split against one of AXES."""
    points = [
        (line["step"], line[metric])
        for line in run.metrics.get("validation", [])
        if line.get(metric) is not None
    ]
    if axis == "step":
        return points
    if run.cost is None:
        return []
    points = [(run.cost.at(step, axis), value) for step, value in points]
    return [(x, value) for x, value in points if x is not None]


def learning_curves(
    runs: Sequence[Run], metric: str, title: str, axis: str = "step"
) -> Chart | None:
    """Charts a metric of the validation split; None where no run has it."""
    points = {n: curve_points(run, metric, axis) for n, run in enumerate(runs)}
    all_points = [point for curve in points.values() for point in curve]
    if not all_points:
        return None
    steps, values = zip(*all_points, strict=True)
    x_ticks, y_ticks = round_ticks(0, max(steps)), round_ticks(min(values), max(values))
    size, x_title = axis_unit(x_ticks[-1], axis)

    def x(step: float) -> float:
        share = (step - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        title=title,
        x_title=x_title,
        x_ticks=tuple((x(step), f"{step / size:,.10g}") for step in x_ticks),
        y_ticks=tuple((y(value), f"{value:,.10g}") for value in y_ticks),
        curves=tuple(
            Curve(number, tuple((x(step), y(value)) for step, value in curve))
            for number, curve in points.items()
            if curve
        ),
    )


def axis_unit(largest: float, axis: str) -> tuple[float, str]:
    """Returns the unit that keeps an axis's labels short, and the axis's title."""
    titles = UNITS.get(axis)
    if titles is None or largest < 1000:
        return 1.0, AXES[axis]
    power = min(int(math.log10(largest * (1 + 1e-9)) // 3), len(titles))
    return 1000.0**power, titles[power - 1]


def round_ticks(low: float, high: float, max_intervals: int = 5) -> list[float]:
    """Returns round numbers, the first at most `low`, the last at least `high`."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / max_intervals))
    step = next(
        factor * magnitude
        for factor in (1, 2, 5, 10)
        if factor * magnitude >= span / max_intervals * (1 - 1e-9)
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
