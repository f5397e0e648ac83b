"""Learning curves as coordinates of an SVG chart, which a template draws."""

import dataclasses
import math
from collections.abc import Sequence

from analysis.report.runs import AXES, Run

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 14, 44  # margins

COUNTS = ("{}, thousands", "{}, millions", "{}, billions")
PREFIXES = ("training KFLOPs", "training MFLOPs", "training GFLOPs", "training TFLOPs")
PREFIXES += ("training PFLOPs", "training EFLOPs", "training ZFLOPs")

Tick = tuple[float, str]  # coordinate and label
Point = tuple[float, float]


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
    titles = {"tokens": COUNTS, "flops": PREFIXES}.get(axis)
    if titles is None or largest < 1000:
        return 1.0, AXES[axis]
    power = min(3 * int(math.log10(largest * (1 + 1e-9)) // 3), 3 * len(titles))
    return 10.0**power, titles[power // 3 - 1].format(AXES[axis])


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
