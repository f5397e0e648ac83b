"""Learning curves as the points of a picture, to be drawn by a template."""

import dataclasses
import math
from collections.abc import Sequence

from analysis.report.runs import Run
from analysis.report.training_cost import AXES

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 14, 44  # margins

COUNTS = ("{}, thousands", "{}, millions", "{}, billions")
PREFIXES = ("training KFLOPs", "training MFLOPs", "training GFLOPs", "training TFLOPs")
PREFIXES += ("training PFLOPs", "training EFLOPs", "training ZFLOPs")

Tick = tuple[float, str]  # where, and what it says
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One run's points, in the units of the picture."""

    run: int
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A picture of WIDTH by HEIGHT, its origin in the upper left corner."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    width = WIDTH
    height = HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def curve_points(run: Run, metric: str, axis: str) -> list[Point]:
    """A metric of the validation split, against one of AXES."""
    lines = [
        line
        for line in run.metrics.get("validation", [])
        if line.get(metric) is not None
    ]
    if axis == "step":
        return [(line["step"], line[metric]) for line in lines]
    if run.spent is None:
        return []
    places = [(run.spent.at(line["step"], axis), line[metric]) for line in lines]
    return [(place, value) for place, value in places if place is not None]


def learning_curves(
    runs: Sequence[Run], metric: str, title: str, axis: str = "step"
) -> Chart | None:
    """A metric of the validation split, drawn; None where no run has it."""
    found = {n: curve_points(run, metric, axis) for n, run in enumerate(runs)}
    everything = [point for points in found.values() for point in points]
    if not everything:
        return None
    places, values = zip(*everything, strict=True)
    x_ticks, y_ticks = ticks(0, max(places)), ticks(min(values), max(values))
    size, x_title = scale(x_ticks[-1], axis)

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
            Curve(number, tuple((x(step), y(value)) for step, value in points))
            for number, points in found.items()
            if points
        ),
    )


def scale(most: float, axis: str) -> tuple[float, str]:
    """What an axis's numbers are divided by, to be short; and the title of it."""
    words = {"tokens": COUNTS, "flops": PREFIXES}.get(axis)
    if words is None or most < 1000:
        return 1.0, AXES[axis]
    power = min(3 * int(math.log10(most * (1 + 1e-9)) // 3), 3 * len(words))
    return 10.0**power, words[power // 3 - 1].format(AXES[axis])


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers, the first not above `low`, the last not below `high`."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(
        factor * magnitude
        for factor in (1, 2, 5, 10)
        if factor * magnitude >= span / most * (1 - 1e-9)
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
