"""Search spaces: distributions of hyper-parameters, sequences of points, and `Space`.

A file of configs/sweeps/ defines `get_space`:

    from sweeps.search_space import Space, log_uniform, product, random, seeds

    def get_space() -> Space:
        return Space(product(random({"optim.lr": log_uniform(1e-4, 1e-2)}), seeds(3)))

- Values of a key: `uniform`, `log_uniform`, `integers`, `choice`.
- Sequences of points: `grid`, `listed`, `seeds`, `random`, `quasi_random`, `tpe`.
- Combinations of sequences: `product`, `zipped`, `chained`.
- Early stopping of trials: `asha`, `hyperband`.

Keys are those of the config; the key "model" is what follows the colon of --config.
A point is a function of its number and the seed. With TPE, whose points depend on the
results of earlier trials, it has a Distribution in place of a value, and the study
samples from that.
"""

import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

__all__ = [
    "Space", "asha", "chained", "choice", "grid", "hyperband", "integers", "listed",
    "log_uniform", "product", "quasi_random", "random", "seeds", "tpe", "uniform",
    "zipped",
]  # fmt: skip


def to_python(value: Any) -> Any:
    """Returns a value with Python's own numbers and lists in place of numpy's."""
    if isinstance(value, list | tuple):
        return type(value)(map(to_python, value))
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


class Distribution:
    """Distribution of the values of a key, formatted as in `Uniform(0.1, 0.5)`."""

    def quantile(self, u: float) -> Any:
        """Returns the value at which the distribution function is u, in [0, 1)."""

    def __contains__(self, value: Any) -> bool:
        """Whether a value is possible."""

    def __str__(self) -> str:
        values = dataclasses.astuple(self)
        if isinstance(self, Choice):
            values = self.values
        return f"{type(self).__name__}({', '.join(map(repr, values))})"


@dataclasses.dataclass(frozen=True)
class Interval(Distribution):
    """Base class of distributions over numbers from low to high."""

    low: float
    high: float

    def __post_init__(self):
        low, high = to_python((self.low, self.high))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if not (_is_number(low) and _is_number(high) and low < high):
            raise UserError(f"{self}: low must be a number below high")

    def __contains__(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Uniform(Interval):
    """Uniform distribution over the interval [low, high]."""

    def quantile(self, u: float) -> float:
        return float(self.low + u * (self.high - self.low))


@dataclasses.dataclass(frozen=True)
class LogUniform(Interval):
    """Distribution over [low, high] whose logarithm is uniform; low > 0."""

    def __post_init__(self):
        super().__post_init__()
        if self.low <= 0:
            raise UserError(f"{self}: low must be above 0")

    def quantile(self, u: float) -> float:
        low, high = math.log(self.low), math.log(self.high)
        value = math.exp(low + u * (high - low))
        return float(min(max(value, self.low), self.high))


@dataclasses.dataclass(frozen=True)
class Integers(Interval):
    """Distribution over the integers from low to high, both included.

    Attributes:
      log: whether the logarithm, instead of the integer, is uniform.
    """

    log: bool = False

    def __post_init__(self):
        super().__post_init__()
        for bound in (self.low, self.high):
            check_integer(f"{self}: a bound", bound)
        if self.log and self.low < 1:
            raise UserError(f"{self}: with log=True, low must be at least 1")

    def quantile(self, u: float) -> int:
        if self.log:
            edges = LogUniform(self.low - 0.5, self.high + 0.5)
            return min(max(round(edges.quantile(u)), self.low), self.high)
        return self.low + int(u * (self.high - self.low + 1))

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Choice(Distribution):
    """Uniform distribution over a list of values."""

    values: tuple

    def __post_init__(self):
        object.__setattr__(self, "values", to_python(self.values))
        if not self.values:
            raise UserError("choice() needs at least one value")

    def quantile(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def __contains__(self, value: Any) -> bool:
        return value in self.values


uniform, log_uniform, integers = Uniform, LogUniform, Integers


def choice(*values) -> Choice:
    """Returns the uniform distribution over some values."""
    return Choice(values)


Ranges = Mapping[str, Distribution]
Point = dict[str, Any]  # from a key to a value, or to a Distribution


class PointSequence:
    """Sequence of points of a search space.

    Attributes:
      size: number of points, or infinity.
      is_adaptive: whether points depend on the results of earlier trials.
      dimensions: number of keys that are sampled.
    """

    size: float
    is_adaptive = False
    dimensions = 0

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        """Returns point `number`, counted from 0 and below `size`.

        Args:
          offset: number of dimensions that other parts of a sequence sample before.
        """

    def domains(self) -> dict[str, Distribution]:
        """Returns each key's range, or all the values that lists give it."""

    def to_dict(self) -> dict:
        """Returns a JSON object, equal for equal sequences only."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Listed(PointSequence):
    """Sequence of just these points: [{"optim.lr": 1e-3, "seed": 1}, ...]."""

    def __init__(self, points: Sequence[Point]):
        self.points = [
            {key: to_python(value) for key, value in point.items()} for point in points
        ]
        if not self.points:
            raise UserError("listed([]) has no point")
        self.size = len(self.points)

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        return dict(self.points[number])

    def domains(self) -> dict[str, Distribution]:
        return _union(
            {key: Choice((value,)) for key, value in point.items()}
            for point in self.points
        )

    def to_dict(self) -> dict:
        return {"kind": "listed", "points": self.points}


class Sampled(PointSequence):
    """Sequence of points sampled from the distributions of some keys.

    Attributes:
      method: "random" (Bergstra and Bengio 2012); "quasi_random", a scrambled Halton
        sequence, which covers the space more evenly; or "tpe" (Bergstra et al. 2011),
        whose points earlier results suggest.
    """

    def __init__(self, method: str, ranges: Ranges, size: int | None = None):
        self.method, self.ranges = method, dict(ranges)
        if size is not None:
            check_integer(f"{method}: size", size, 1)
        self.size = math.inf if size is None else size
        self.is_adaptive = method == "tpe"
        self.dimensions = len(self.ranges)
        for key, distribution in ranges.items():
            if not isinstance(distribution, Distribution):
                raise UserError(
                    f"{method}: {key} needs uniform, log_uniform, integers or choice, "
                    f"got {distribution!r}"
                )

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        if self.method == "tpe":
            return dict(self.ranges)
        if self.method == "random":
            key = [seed, number, offset] if offset else [seed, number]
            us = np.random.default_rng(key).random(self.dimensions)
        else:
            us = halton_point(number, offset + self.dimensions, seed)[offset:]
        sampled = zip(self.ranges.items(), us, strict=True)
        return {key: within.quantile(float(u)) for (key, within), u in sampled}

    def domains(self) -> dict[str, Distribution]:
        return dict(self.ranges)

    def to_dict(self) -> dict:
        ranges = [
            [key, {"kind": type(within).__name__, **dataclasses.asdict(within)}]
            for key, within in self.ranges.items()
        ]
        size = None if self.size == math.inf else self.size
        return {"kind": self.method, "ranges": ranges, "size": size}


def halton_point(number: int, dimensions: int, seed: int) -> np.ndarray:
    """Returns one point in [0, 1) of a scrambled Halton sequence.

    The digits are permuted at random (Owen 2017, "A randomized Halton algorithm in
    R"), without which high dimensions are correlated. The point depends on the
    arguments alone.
    """
    from scipy.stats import qmc  # takes seconds to import

    sequence = qmc.Halton(dimensions, rng=np.random.default_rng(seed))
    return np.minimum(sequence.fast_forward(number).random()[0], 1 - 2**-53)


class Combined(PointSequence):
    """Base class of the sequences that are made of others.

    Sampled parts draw independent points, as dimensions of one sequence.

    Attributes:
      joins_points: whether a point has the keys of all parts, which must differ.
    """

    joins_points = True

    def __init__(self, *parts: PointSequence):
        for part in parts:
            if not isinstance(part, PointSequence):
                raise UserError(
                    f"{part!r} is not a sequence of points: use grid, listed, seeds, "
                    "random, quasi_random or tpe"
                )
        if not parts:
            raise UserError(f"{type(self).__name__.lower()} needs one part or more")
        self.parts, self.sizes = parts, [part.size for part in parts]
        self.is_adaptive = any(part.is_adaptive for part in parts)
        counts = [part.dimensions for part in parts]
        self.offsets = [0, *itertools.accumulate(counts)][:-1]
        self.dimensions = sum(counts)
        keys = [key for part in parts for key in part.domains()]
        for key in keys if self.joins_points else ():
            if keys.count(key) > 1:
                raise UserError(f"{key} is in two parts of a product or zip")

    def domains(self) -> dict[str, Distribution]:
        return _union(part.domains() for part in self.parts)

    def to_dict(self) -> dict:
        parts = [part.to_dict() for part in self.parts]
        return {"kind": type(self).__name__.lower(), "parts": parts}


class Product(Combined):
    """Cartesian product of sequences; the last changes fastest.

    Only the first may be infinite.
    """

    def __init__(self, *parts: PointSequence):
        super().__init__(*parts)
        if self.is_adaptive:
            raise UserError(
                "tpe(...) cannot be a part of a product, since each of its points "
                "belongs to one trial: use zipped or chained"
            )
        if math.inf in self.sizes[1:]:
            raise UserError("only the first part of a product may be infinite")
        self.size = math.prod(self.sizes)

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        points = []
        for part, start in reversed([*zip(self.parts, self.offsets, strict=True)][1:]):
            number, index = divmod(number, part.size)
            points.append(part.point(index, seed, offset + start))
        points.append(self.parts[0].point(number, seed, offset))
        return _merge(reversed(points))


class Zip(Combined):
    """Sequence whose point n joins the points n of all parts."""

    def __init__(self, *parts: PointSequence):
        super().__init__(*parts)
        sizes = set(self.sizes) - {math.inf}
        if len(sizes) > 1:
            raise UserError(
                f"zipped parts have {sorted(sizes)} points; sizes must be equal"
            )
        self.size = min(self.sizes)

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        return _merge(
            part.point(number, seed, offset + start)
            for part, start in zip(self.parts, self.offsets, strict=True)
        )


class Chain(Combined):
    """Concatenation of sequences, of which only the last may be infinite."""

    joins_points = False

    def __init__(self, *parts: PointSequence):
        super().__init__(*parts)
        if math.inf in self.sizes[:-1]:
            raise UserError("only the last part of a chain may be infinite")
        self.size = sum(self.sizes)

    def point(self, number: int, seed: int, offset: int = 0) -> Point:
        for part, start in zip(self.parts, self.offsets, strict=True):
            if number < part.size:
                return part.point(number, seed, offset + start)
            number -= part.size
        raise IndexError(number)


def check_integer(name: str, value: object, low: int | None = None) -> None:
    """Raises UserError for another type than int, or a number below `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UserError(f"{name}={value!r} must be an integer")
    if low is not None and value < low:
        raise UserError(f"{name}={value} must be at least {low}")


def _union(all_domains: Iterable[dict[str, Distribution]]) -> dict[str, Distribution]:
    """Returns for each key its one range, or else all values of its choices."""
    union: dict[str, Distribution] = {}
    for key, new in (item for domains in all_domains for item in domains.items()):
        old = union.setdefault(key, new)
        if isinstance(old, Choice) and isinstance(new, Choice):
            added = (value for value in new.values if value not in old.values)
            union[key] = Choice((*old.values, *added))
        elif isinstance(old, Choice):
            union[key] = new
        elif old != new and not isinstance(new, Choice):
            raise UserError(f"{key} has two ranges in a chain: {old!r} and {new!r}")
    return union


def _merge(points: Iterable[Point]) -> Point:
    return {key: value for point in points for key, value in point.items()}


listed, product, zipped, chained = Listed, Product, Zip, Chain
random = functools.partial(Sampled, "random")
quasi_random = functools.partial(Sampled, "quasi_random")
tpe = functools.partial(Sampled, "tpe")


def grid(values: Mapping[str, Sequence]) -> PointSequence:
    """Returns all combinations of some keys' values; the last key changes fastest."""
    values = {key: to_python(row) for key, row in values.items()}
    for key, row in values.items():
        if isinstance(row, str) or not isinstance(row, Sequence) or not row:
            raise UserError(f"grid: {key} needs a list of values, got {row!r}")
    parts = [Listed([{key: value} for value in row]) for key, row in values.items()]
    return parts[0] if len(parts) == 1 else Product(*parts)


def seeds(count: int, first: int = 0) -> PointSequence:
    """Returns points that differ in `seed`, which sets parameters and dropout."""
    return grid({"seed": range(first, first + count)})


@dataclasses.dataclass(frozen=True)
class Pruning:
    """Rule by which trials that do worse than others are stopped early.

    Attributes:
      method: "asha" (asynchronous successive halving, Li et al. 2020) or "hyperband"
        (Li et al. 2018), which runs successive halving from several first rungs.
      factor: reduction factor: one trial in `factor` continues after each rung.
      min_steps: steps until the first rung; None: until the first validation.
      max_steps: steps of a whole trial; None: the config's.
      metric: metric to compare, as in Space.metric; None: the sweep's. BLEU is not
        informative early in training; the loss is.
      direction: "min" or "max", for a metric that the task does not know.
    """

    method: str
    factor: int = 3
    min_steps: int | None = None
    max_steps: int | None = None
    metric: str | None = None
    direction: str | None = None

    def __post_init__(self):
        check_integer(f"{self.method}: factor", self.factor, 2)
        for name in ("min_steps", "max_steps"):
            if getattr(self, name) is not None:
                check_integer(f"{self.method}: {name}", getattr(self, name), 1)

    def rung_bounds(
        self, steps: int | None, first_validation: int
    ) -> tuple[int, int | None]:
        """Returns the step of the first rung and the last step of a whole trial.

        Args:
          steps: steps of a trial; None: unknown.

        Raises:
          UserError: Hyperband does not know the last step, or it precedes the first.
        """
        first, last = self.min_steps or first_validation, self.max_steps or steps
        if self.method == "hyperband" and last is None:
            raise UserError(
                "hyperband: the number of steps of a trial is not known with "
                "epochs=...; give hyperband(max_steps=N), or --config.epochs=0 and "
                "--config.steps=N"
            )
        if self.method == "hyperband" and first > last:
            raise UserError(
                f"hyperband: min_steps={first} is more than max_steps={last}"
            )
        return first, last


asha = functools.partial(Pruning, "asha")
hyperband = functools.partial(Pruning, "hyperband")


@dataclasses.dataclass(frozen=True)
class Space:
    """Search space of a sweep, and its objective.

    Attributes:
      points: sequence of points, one a trial.
      trials: number of trials, unless --trials gives it; None: all points.
      metric: metric of the validation split, or "train/NAME"; None: the one that
        selects checkpoints.
      direction: "min" or "max", for a metric that the task does not know.
      value: "best" or "last": which value of the metric counts for a trial.
      pruning: rule to stop trials early; None: no trial is.
      retries: number of times that a failed trial is run again.
      seed: seed of the sampled points.
    """

    points: PointSequence
    trials: int | None = None
    metric: str | None = None
    direction: str | None = None
    value: str = "best"
    pruning: Pruning | None = None
    retries: int = 1
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.points, PointSequence):
            raise UserError(
                f"Space({self.points!r}) needs a sequence of points: grid(...), "
                "random(...), ..."
            )
        check_integer("retries", self.retries, 0)
        check_integer("seed", self.seed, 0)
        if self.value not in ("best", "last"):
            raise UserError(f"Unknown value={self.value!r}; choose one of best, last")
        for direction in (self.direction, self.pruning and self.pruning.direction):
            if direction not in (None, "min", "max"):
                raise UserError(
                    f"Unknown direction={direction!r}; choose one of min, max"
                )

    def point(self, number: int) -> Point:
        """Returns the point of trial `number`."""
        return self.points.point(number, self.seed)

    def num_trials(self, requested: int | None) -> int:
        """Returns the number of trials, given the value of --trials if there is one.

        Raises:
          UserError: it is below 1 or above the number of points, or the space is
            infinite and there is no number.
        """
        wanted = self.trials if requested is None else requested
        size = self.points.size
        if wanted is None and size == math.inf:
            raise UserError("the space is infinite: give the number with --trials=N")
        if wanted is not None and wanted < 1:
            raise UserError(f"--trials={wanted} must be at least 1")
        if requested is not None and requested > size:
            raise UserError(f"--trials={requested}: the space has {size} points")
        return size if wanted is None else min(wanted, size)

    def to_dict(self) -> dict:
        """Returns a JSON object without `trials` and `retries`, which may change."""
        kept = ("metric", "direction", "value", "seed")
        return {
            **{key: getattr(self, key) for key in kept},
            "pruning": self.pruning and dataclasses.asdict(self.pruning),
            "points": self.points.to_dict(),
        }


def read_space(path: str, model: str | None = None) -> Space:
    """Reads the space that `get_space` of a Python file returns.

    Args:
      model: argument of `get_space`, if that has one: the model of --config.

    Raises:
      UserError: the file does not exist, fails or returns something else.
    """
    if not Path(path).is_file():
        known = [str(p) for p in sorted(Path("configs/sweeps").glob("[!_]*.py"))]
        raise UserError(f"space {path} does not exist; there are {', '.join(known)}")
    try:
        content = runpy.run_path(path)
        if "get_space" not in content:
            raise UserError("it defines no function get_space()")
        get_space = content["get_space"]
        has_argument = model and inspect.signature(get_space).parameters
        space = get_space(model) if has_argument else get_space()
        if not isinstance(space, Space):
            raise UserError(f"get_space() returned {space!r}, not a Space")
    except Exception as error:
        raise UserError(f"space {path}: {_describe(error)}") from error
    return space


def _describe(error: Exception) -> str:
    name = re.search(r"name '(\w+)'", str(error))
    if isinstance(error, UserError | ModuleNotFoundError):
        return str(error)
    if isinstance(error, ImportError | NameError) and name:
        known = ", ".join(__all__)
        return f"Unknown name {name[1]!r}; sweeps.search_space has {known}"
    if isinstance(error, ImportError | NameError):
        return str(error)
    return f"{type(error).__name__}: {error}"
