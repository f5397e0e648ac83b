"""Learning curves as the points of a picture, to be drawn by a template."""

import dataclasses
import math
from collections.abc import Sequence

from analysis.runs import Run

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 14, 44  # margins

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
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    width = WIDTH
    height = HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def learning_curves(runs: Sequence[Run], metric: str, title: str) -> Chart | None:
    """A metric of the validation split against steps; None where none has it."""
    found = {
        number: [
            (line["step"], line[metric])
            for line in run.metrics.get("validation", [])
            if line.get(metric) is not None
        ]
        for number, run in enumerate(runs)
    }
    everything = [point for points in found.values() for point in points]
    if not everything:
        return None
    steps, values = zip(*everything, strict=True)
    x_ticks, y_ticks = ticks(0, max(steps)), ticks(min(values), max(values))

    def x(step: float) -> float:
        share = (step - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        title=title,
        x_ticks=tuple((x(step), f"{step:,.10g}") for step in x_ticks),
        y_ticks=tuple((y(value), f"{value:,.10g}") for value in y_ticks),
        curves=tuple(
            Curve(number, tuple((x(step), y(value)) for step, value in points))
            for number, points in found.items()
            if points
        ),
    )


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
