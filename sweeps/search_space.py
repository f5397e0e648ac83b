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
import importlib.util
import itertools
import math
import re
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


# Distributions. `quantile(u)` is the inverse of the distribution function.


@dataclasses.dataclass(frozen=True)
class Interval:
    """Base class of distributions over numbers from low to high."""

    low: float
    high: float

    def __post_init__(self):
        low, high = self.low, self.high
        if not (_is_number(low) and _is_number(high) and low < high):
            text = format_distribution(self)
            raise UserError(f"{text}: low must be a number below high")

    def __contains__(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


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
            raise UserError(f"{format_distribution(self)}: low must be above 0")

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
        if self.log and self.low < 1:
            text = format_distribution(self)
            raise UserError(f"{text}: with log=True, low must be at least 1")

    def quantile(self, u: float) -> int:
        if self.log:
            edges = LogUniform(self.low - 0.5, self.high + 0.5)
            return min(max(round(edges.quantile(u)), self.low), self.high)
        return self.low + int(u * (self.high - self.low + 1))

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Choice:
    """Uniform distribution over a list of values."""

    values: tuple

    def __post_init__(self):
        if not self.values:
            raise UserError("choice() needs at least one value")

    def quantile(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def __contains__(self, value: Any) -> bool:
        return value in self.values


Distribution = Uniform | LogUniform | Integers | Choice
Ranges = Mapping[str, Distribution]
Point = dict[str, Any]  # from a key to a value, or to a Distribution

uniform, log_uniform, integers = Uniform, LogUniform, Integers


def choice(*values) -> Choice:
    """Returns the uniform distribution over some values."""
    return Choice(values)


def format_distribution(distribution: Distribution) -> str:
    """Formats a distribution as in `LogUniform(0.0001, 0.01)`."""
    values = dataclasses.astuple(distribution)
    if isinstance(distribution, Choice):
        values = distribution.values
    return f"{type(distribution).__name__}({', '.join(map(repr, values))})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Sequences of points.


class PointSequence:
    """Finite or infinite sequence of points of a search space.

    Attributes:
      size: number of points; None: infinite.
    """

    size: int | None = None

    def point(self, number: int, seed: int) -> Point:
        """Returns point `number`, counted from 0 and below `size`."""
        raise NotImplementedError

    def domains(self) -> dict[str, Distribution]:
        """Returns the distribution of each key's values."""
        raise NotImplementedError

    def to_dict(self) -> dict:
        """Returns a JSON object, equal for equal sequences only."""
        raise NotImplementedError

    @property
    def is_adaptive(self) -> bool:
        """Whether points depend on the results of earlier trials."""
        return False


@dataclasses.dataclass(frozen=True)
class Listed(PointSequence):
    """Sequence of points that are given one by one."""

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
        return {key: Choice(tuple(distinct)) for key, distinct in values.items()}

    def to_dict(self) -> dict:
        return {"kind": "listed", "points": list(self.points)}


@dataclasses.dataclass(frozen=True)
class Sampled(PointSequence):
    """Sequence of points sampled from the distributions of some keys.

    Attributes:
      method: "random", "quasi_random" or "tpe".
    """

    method: str
    ranges: dict[str, Distribution]
    size: int | None = None

    def __post_init__(self):
        for key, distribution in self.ranges.items():
            if not isinstance(distribution, Distribution):
                raise UserError(
                    f"{self.method}: {key} needs uniform, log_uniform, integers or "
                    f"choice, got {distribution!r}"
                )

    def point(self, number: int, seed: int) -> Point:
        if self.method == "tpe":
            return dict(self.ranges)
        if self.method == "random":
            us = np.random.default_rng([seed, number]).random(len(self.ranges))
        else:
            us = halton_point(number, len(self.ranges), seed)
        sampled = zip(self.ranges.items(), us, strict=True)
        return {key: within.quantile(float(u)) for (key, within), u in sampled}

    def domains(self) -> dict[str, Distribution]:
        return dict(self.ranges)

    def to_dict(self) -> dict:
        ranges = [
            [key, {"kind": type(within).__name__, **dataclasses.asdict(within)}]
            for key, within in self.ranges.items()
        ]
        return {"kind": self.method, "ranges": ranges, "size": self.size}

    @property
    def is_adaptive(self) -> bool:
        return self.method == "tpe"


def halton_point(number: int, dimensions: int, seed: int) -> np.ndarray:
    """Returns one point in [0, 1) of a scrambled Halton sequence.

    The digits are permuted at random (Owen 2017, "A randomized Halton algorithm in
    R"), without which high dimensions are correlated. The point depends on the
    arguments alone.
    """
    from scipy.stats import qmc  # takes seconds to import

    sequence = qmc.Halton(dimensions, rng=np.random.default_rng(seed))
    return np.minimum(sequence.fast_forward(number).random()[0], 1 - 2**-53)


@dataclasses.dataclass(frozen=True)
class Combined(PointSequence):
    """Base class of the sequences that are made of others."""

    parts: tuple[PointSequence, ...]

    def __post_init__(self):
        for part in self.parts:
            if not isinstance(part, PointSequence):
                raise UserError(
                    f"{part!r} is not a sequence of points: use grid, listed, seeds, "
                    "random, quasi_random or tpe"
                )

    @property
    def is_adaptive(self) -> bool:
        return any(part.is_adaptive for part in self.parts)

    def domains(self) -> dict[str, Distribution]:
        return _merge(part.domains() for part in self.parts)

    def to_dict(self) -> dict:
        parts = [part.to_dict() for part in self.parts]
        return {"kind": type(self).__name__.lower(), "parts": parts}

    def _check_keys(self) -> None:
        keys = [key for part in self.parts for key in part.domains()]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{key} is in two parts of a product or zip")


@dataclasses.dataclass(frozen=True)
class Product(Combined):
    """Cartesian product of sequences; the last changes fastest.

    Only the first may be infinite.
    """

    def __post_init__(self):
        super().__post_init__()
        self._check_keys()
        if self.is_adaptive:
            raise UserError(
                "tpe(...) cannot be a part of a product, since each of its points "
                "belongs to one trial: use zipped or chained"
            )
        if any(part.size is None for part in self.parts[1:]):
            raise UserError("only the first part of a product may be infinite")

    @property
    def size(self) -> int | None:
        sizes = [part.size for part in self.parts]
        return None if None in sizes else math.prod(sizes)

    def point(self, number: int, seed: int) -> Point:
        points = []
        for part in reversed(self.parts[1:]):
            number, index = divmod(number, part.size)
            points.append(part.point(index, seed))
        points.append(self.parts[0].point(number, seed))
        return _merge(reversed(points))


@dataclasses.dataclass(frozen=True)
class Zip(Combined):
    """Sequence whose point n joins the points n of all parts."""

    def __post_init__(self):
        super().__post_init__()
        self._check_keys()
        sizes = {part.size for part in self.parts} - {None}
        if len(sizes) > 1:
            raise UserError(
                f"zipped parts have {sorted(sizes)} points; sizes must be equal"
            )

    @property
    def size(self) -> int | None:
        return next((p.size for p in self.parts if p.size is not None), None)

    def point(self, number: int, seed: int) -> Point:
        return _merge(part.point(number, seed) for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Chain(Combined):
    """Concatenation of sequences, of which only the last may be infinite."""

    def __post_init__(self):
        super().__post_init__()
        if any(part.size is None for part in self.parts[:-1]):
            raise UserError("only the last part of a chain may be infinite")

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
        """Returns each key's range, or all the values that lists give it."""
        merged: dict[str, Distribution] = {}
        for part in self.parts:
            for key, within in part.domains().items():
                merged[key] = _union(key, merged.get(key, within), within)
        return merged


def _union(key: str, first: Distribution, second: Distribution) -> Distribution:
    if first == second:
        return first
    if isinstance(first, Choice) and isinstance(second, Choice):
        added = (value for value in second.values if value not in first.values)
        return Choice((*first.values, *added))
    if isinstance(first, Choice) or isinstance(second, Choice):
        return second if isinstance(first, Choice) else first
    raise UserError(f"{key} has two ranges in a chain: {first} and {second}")


def _merge(points: Iterable[dict]) -> dict:
    return {key: value for point in points for key, value in point.items()}


def listed(points: Sequence[Point]) -> PointSequence:
    """Returns just these points: [{"optim.lr": 1e-3, "seed": 1}, ...]."""
    return Listed(tuple(dict(point) for point in points))


def grid(values: Mapping[str, Sequence]) -> PointSequence:
    """Returns all combinations of some keys' values; the last key changes fastest."""
    for key, row in values.items():
        if isinstance(row, str) or not isinstance(row, Sequence) or not row:
            raise UserError(f"grid: {key} needs a list of values, got {row!r}")
    parts = [listed([{key: value} for value in row]) for key, row in values.items()]
    return parts[0] if len(parts) == 1 else Product(tuple(parts))


def seeds(count: int, first: int = 0) -> PointSequence:
    """Returns points that differ in `seed`, which sets parameters and dropout."""
    return grid({"seed": range(first, first + count)})


def random(ranges: Ranges, size: int | None = None) -> PointSequence:
    """Returns independent samples (random search, Bergstra and Bengio 2012)."""
    return Sampled("random", dict(ranges), size)


def quasi_random(ranges: Ranges, size: int | None = None) -> PointSequence:
    """Returns a scrambled Halton sequence, which covers the space more evenly."""
    return Sampled("quasi_random", dict(ranges), size)


def tpe(ranges: Ranges, size: int | None = None) -> PointSequence:
    """Returns points that earlier results suggest (TPE, Bergstra et al. 2011)."""
    return Sampled("tpe", dict(ranges), size)


def product(*parts: PointSequence) -> PointSequence:
    """Returns the Cartesian product of sequences; the last changes fastest."""
    return Product(parts)


def zipped(*parts: PointSequence) -> PointSequence:
    """Returns the points n of all sequences joined to one point n."""
    return Zip(parts)


def chained(*parts: PointSequence) -> PointSequence:
    """Returns the points of the first sequence, then those of the next ones."""
    return Chain(parts)


# Spaces.


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
        if self.factor < 2:
            raise UserError(f"{self.method}: factor={self.factor} must be at least 2")

    def rung_bounds(
        self, steps: int | None, first_validation: int
    ) -> tuple[int, int | None]:
        """Returns the step of the first rung and the last step of a whole trial.

        Args:
          steps: steps of a trial; None: unknown.
          first_validation: step of the first validation.

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


def asha(**options) -> Pruning:
    """Returns asynchronous successive halving; see `Pruning` for its options."""
    return Pruning("asha", **options)


def hyperband(**options) -> Pruning:
    """Returns the Hyperband rule; see `Pruning` for its options."""
    return Pruning("hyperband", **options)


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
        """Returns the number of trials.

        Args:
          requested: value of --trials, if it was given.

        Raises:
          UserError: it is below 1 or above the number of points, or the space is
            infinite and there is no number.
        """
        wanted = self.trials if requested is None else requested
        size = self.points.size
        if wanted is None and size is None:
            raise UserError("the space is infinite: give the number with --trials=N")
        if wanted is not None and wanted < 1:
            raise UserError(f"--trials={wanted} must be at least 1")
        if requested is not None and size is not None and requested > size:
            raise UserError(f"--trials={requested}: the space has {size} points")
        return min(count for count in (wanted, size) if count is not None)

    def to_dict(self) -> dict:
        """Returns a JSON object without `trials` and `retries`, which may change."""
        fields = dataclasses.asdict(dataclasses.replace(self, points=Listed(())))
        kept = {key: fields[key] for key in ("metric", "direction", "value", "seed")}
        return {**kept, "pruning": fields["pruning"], "points": self.points.to_dict()}


def read_space(path: str) -> Space:
    """Reads the space that `get_space` of a Python file returns.

    Raises:
      UserError: the file does not exist, fails or returns something else.
    """
    file = Path(path)
    if not file.is_file():
        known = [str(p) for p in sorted(Path("configs/sweeps").glob("[!_]*.py"))]
        raise UserError(f"space {path} does not exist; there are {', '.join(known)}")
    spec = importlib.util.spec_from_file_location("space", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_space"):
            raise UserError("it defines no function get_space()")
        space = module.get_space()
    except UserError as error:
        raise UserError(f"space {path}: {error}") from error
    except (ImportError, NameError) as error:
        quoted = re.search(r"name '(\w+)'", str(error))
        if isinstance(error, ModuleNotFoundError) or not quoted:
            raise UserError(f"space {path}: {error}") from error
        raise UserError(
            f"space {path}: Unknown name {quoted[1]!r}; sweeps.search_space has "
            f"{', '.join(__all__)}"
        ) from error
    except Exception as error:
        raise UserError(f"space {path}: {type(error).__name__}: {error}") from error
    if not isinstance(space, Space):
        raise UserError(f"space {path}: get_space() returned {space!r}, not a Space")
    return space
