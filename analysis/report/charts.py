"""Charts as coordinates of SVG: lines, bands and points."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 14, 44  # margins
MAX_LOG_TICKS = 7
LOG_FACTORS = ((1, 2, 5), (1, 3), (1,))  # ticks within a power of ten

Tick = tuple[float, str]  # coordinate and label
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Series:
    """Line of a run or a model in the units of the chart's axes.

    Attributes:
      number: index of the run or the model, which sets the colour.
      band: (x, low, high), drawn behind the line.
      has_marks: whether points have circles.
    """

    number: int
    label: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    has_line: bool = True
    has_marks: bool = True


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of WIDTH by HEIGHT with its origin in the upper left corner."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]  # in coordinates; a band is its outline
    width = WIDTH
    height = HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def make_chart(
    title: str,
    x_title: str,
    series: Sequence[Series],
    *,
    is_log_x: bool = False,
    x_start: float | None = None,
    format_x: Callable[[float], str] = "{:,.10g}".format,
) -> Chart | None:
    """Draws series in one chart; returns None where there are no points.

    Args:
      x_start: value that the x axis begins at; None: that of the first point.
    """
    series = [one for one in map(finite, series) if one.points]
    if not series:
        return None
    xs = [x for one in series for x, _ in one.points]
    xs += [x for one in series for x, _, _ in one.band]
    xs += [] if x_start is None else [x_start]
    ys = [y for one in series for _, y in one.points]
    ys += [y for one in series for _, *ends in one.band for y in ends]
    transform = math.log10 if is_log_x else float
    if is_log_x:
        x_ticks = log_ticks(min(xs), max(xs))
        ends = [transform(value) for value in (*x_ticks, min(xs), max(xs))]
        x_range = [min(ends), max(ends)]
        if x_range[0] == x_range[1]:
            x_range = [x_range[0] - 0.5, x_range[1] + 0.5]
    else:
        x_ticks = round_ticks(min(xs), max(xs))
        x_range = x_ticks
    y_ticks = round_ticks(min(ys), max(ys))
    scale_y = functools.partial(scale, ticks=y_ticks, start=HEIGHT - BOTTOM, end=TOP)

    def scale_x(value: float) -> float:
        return scale(transform(value), x_range, LEFT, WIDTH - RIGHT)

    def place(one: Series) -> Series:
        points = tuple((scale_x(x), scale_y(y)) for x, y in one.points)
        low = [(scale_x(x), scale_y(y)) for x, y, _ in one.band]
        high = [(scale_x(x), scale_y(y)) for x, _, y in one.band]
        outline = tuple([*low, *reversed(high)])
        return dataclasses.replace(one, points=points, band=outline)

    return Chart(
        title,
        x_title,
        tuple((scale_x(x), format_x(x)) for x in x_ticks),
        tuple((scale_y(y), f"{y:,.10g}") for y in y_ticks),
        tuple(map(place, series)),
    )


def finite(series: Series) -> Series:
    """Returns a series without points that are missing or not finite."""
    return dataclasses.replace(
        series,
        points=[
            p for p in series.points if None not in p and all(map(math.isfinite, p))
        ],
        band=[p for p in series.band if None not in p and all(map(math.isfinite, p))],
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers inside of the range, few enough for a short axis."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for factors in LOG_FACTORS:
        ticks = [
            tick
            for power in powers
            for factor in factors
            if low * (1 - 1e-9) <= (tick := factor * 10.0**power) <= high * (1 + 1e-9)
        ]
        if 2 <= len(ticks) <= MAX_LOG_TICKS:
            return ticks
    step = max(1, math.ceil(len(ticks) / MAX_LOG_TICKS))
    return ticks[::step] if len(ticks) > 1 else sorted({low, high})


def scale(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    """Maps the range of the ticks to coordinates from `start` to `end`."""
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return round(start + share * (end - start), 1)


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
