"""The points of a search space: which values of which keys each trial has.

A point is a function of its number and the seed. Where a value shall depend on how
earlier trials fared, the point holds a Distribution instead of it, which the study
draws from. That is all that tells TPE from the others.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from sweeps.search_space.distributions import Choice, Distribution, describe
from sweeps.search_space.halton import halton_point
from utils.errors import UserError

Point = dict[str, Any]  # from a key to a value, or to a Distribution


class Points:
    """A row of points, with or without an end.

    Attributes:
      size: how many; None: without end.
    """

    size: int | None = None

    def point(self, number: int, seed: int) -> Point:
        """Point `number`, from 0; below `size`."""
        raise NotImplementedError

    def domains(self) -> dict[str, Distribution]:
        """What each key may be."""
        raise NotImplementedError

    def describe(self) -> dict:
        """As JSON; equal where the points are."""
        raise NotImplementedError

    @property
    def is_adaptive(self) -> bool:
        """Whether a point holds a Distribution."""
        return False


@dataclasses.dataclass(frozen=True)
class Listed(Points):
    """Points one by one."""

    points: tuple[Point, ...]

    @property
    def size(self) -> int:
        return len(self.points)

    def point(self, number: int, seed: int) -> Point:
        return dict(self.points[number])

    def domains(self) -> dict[str, Distribution]:
        values: dict[str, list] = {}
        for key, value in itertools.chain(*(p.items() for p in self.points)):
            if value not in values.setdefault(key, []):
                values[key].append(value)
        return {key: Choice(tuple(found)) for key, found in values.items()}

    def describe(self) -> dict:
        return {"kind": "listed", "points": list(self.points)}


@dataclasses.dataclass(frozen=True)
class Drawn(Points):
    """Points with a value of each range, drawn in one of three ways.

    Attributes:
      how: "random", "quasi_random" (Halton) or "tpe".
      size: None: without end.
    """

    how: str
    ranges: dict[str, Distribution]
    size: int | None = None

    def point(self, number: int, seed: int) -> Point:
        if self.how == "tpe":
            return dict(self.ranges)
        if self.how == "random":
            shares = np.random.default_rng([seed, number]).random(len(self.ranges))
        else:
            shares = halton_point(number, len(self.ranges), seed)
        drawn = zip(self.ranges.items(), shares, strict=True)
        return {key: within.at(float(share)) for (key, within), share in drawn}

    def domains(self) -> dict[str, Distribution]:
        return dict(self.ranges)

    def describe(self) -> dict:
        ranges = [[key, describe(within)] for key, within in self.ranges.items()]
        return {"kind": self.how, "ranges": ranges, "size": self.size}

    @property
    def is_adaptive(self) -> bool:
        return self.how == "tpe"


@dataclasses.dataclass(frozen=True)
class Combined(Points):
    """What `product`, `zipped` and `chained` share: parts of which none is empty."""

    parts: tuple[Points, ...]

    def __post_init__(self):
        for part in self.parts:
            if not isinstance(part, Points):
                raise UserError(f"{part!r} is no points: use grid, listed, random, ...")

    @property
    def is_adaptive(self) -> bool:
        return any(part.is_adaptive for part in self.parts)

    def describe(self) -> dict:
        parts = [part.describe() for part in self.parts]
        return {"kind": type(self).__name__.lower(), "parts": parts}

    def _check_keys(self) -> None:
        keys = [key for part in self.parts for key in part.domains()]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{key} is in two parts of a product or zip")


@dataclasses.dataclass(frozen=True)
class Product(Combined):
    """Each point of a part with each of the others; the last part runs fastest.

    Only the first may be without end.
    """

    def __post_init__(self):
        super().__post_init__()
        self._check_keys()
        if self.is_adaptive:
            raise UserError(
                "tpe(...) cannot be a part of a product, since each of its points is "
                "a trial's own: use zipped or chained"
            )
        if any(part.size is None for part in self.parts[1:]):
            raise UserError("only the first part of a product may be without end")

    @property
    def size(self) -> int | None:
        sizes = [part.size for part in self.parts]
        return None if None in sizes else math.prod(sizes)

    def point(self, number: int, seed: int) -> Point:
        points = []
        for part in reversed(self.parts[1:]):
            number, own = divmod(number, part.size)
            points.append(part.point(own, seed))
        points.append(self.parts[0].point(number, seed))
        return _joined(reversed(points))

    def domains(self) -> dict[str, Distribution]:
        return _joined(part.domains() for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Zip(Combined):
    """The first points of all parts together, then the second ones, ..."""

    def __post_init__(self):
        super().__post_init__()
        self._check_keys()
        sizes = {part.size for part in self.parts} - {None}
        if len(sizes) > 1:
            raise UserError(f"zipped parts have {sorted(sizes)} points: not as many")

    @property
    def size(self) -> int | None:
        return next((p.size for p in self.parts if p.size is not None), None)

    def point(self, number: int, seed: int) -> Point:
        return _joined(part.point(number, seed) for part in self.parts)

    def domains(self) -> dict[str, Distribution]:
        return _joined(part.domains() for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Chain(Combined):
    """All points of the first part, then those of the next; the last may be endless."""

    def __post_init__(self):
        super().__post_init__()
        if any(part.size is None for part in self.parts[:-1]):
            raise UserError("only the last part of a chain may be without end")

    @property
    def size(self) -> int | None:
        sizes = [part.size for part in self.parts]
        return None if None in sizes else sum(sizes)

    def point(self, number: int, seed: int) -> Point:
        for part in self.parts:
            if part.size is None or number < part.size:
                return part.point(number, seed)
            number -= part.size
        raise IndexError(number)

    def domains(self) -> dict[str, Distribution]:
        """Of a key that a range and a list have, the range; of two lists, both."""
        merged: dict[str, Distribution] = {}
        for part in self.parts:
            for key, within in part.domains().items():
                merged[key] = _merged(key, merged.get(key, within), within)
        return merged


def _merged(key: str, one: Distribution, other: Distribution) -> Distribution:
    if one == other:
        return one
    if isinstance(one, Choice) and isinstance(other, Choice):
        return Choice((*one.values, *(v for v in other.values if v not in one.values)))
    if isinstance(one, Choice) or isinstance(other, Choice):
        return other if isinstance(one, Choice) else one
    raise UserError(f"{key} has two ranges in a chain: {one} and {other}")


def _joined(points) -> dict:
    return {key: value for point in points for key, value in point.items()}
