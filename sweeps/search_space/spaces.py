"""The vocabulary of the files in configs/sweeps/: a space is a file with `get_space`.

    from sweeps.search_space.spaces import Space, log_uniform, product, random, seeds

    def get_space() -> Space:
        return Space(product(random({"optim.lr": log_uniform(1e-4, 1e-2)}), seeds(3)))

Keys are those of the config; the key "model" is what stands behind the colon of
--config. Nothing here knows a model, an optimiser or a device.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.search_space.distributions import (
    Choice,
    Distribution,
    Integers,
    LogUniform,
    Uniform,
)
from sweeps.search_space.points import Chain, Drawn, Listed, Point, Points, Product, Zip
from utils.errors import UserError

uniform, log_uniform, integers = Uniform, LogUniform, Integers


@dataclasses.dataclass(frozen=True)
class Pruning:
    """When a trial that does worse than others is stopped early.

    Attributes:
      how: "asha" (successive halving as trials come, Li et al. 2020) or "hyperband"
        (Li et al. 2018): halvings that begin at several steps.
      factor: one in so many goes on after each rung.
      min_steps: steps until the first rung; None: until the first validation.
      max_steps: those of a whole trial; None: the config's.
      metric: what is compared, as Space.metric; None: the same. BLEU says nothing
        early, loss does.
      direction: "min" or "max", of a metric the task does not know.
    """

    how: str
    factor: int = 3
    min_steps: int | None = None
    max_steps: int | None = None
    metric: str | None = None
    direction: str | None = None

    def __post_init__(self):
        if self.factor < 2:
            raise UserError(f"factor={self.factor}: at least 2, one in so many goes on")

    def rungs(self, steps: int | None, first_rung: int) -> tuple[int, int | None]:
        """The first step at which trials are compared, and the last of a whole trial.

        Args:
          steps: of a trial; None: nobody knows.
          first_rung: the step of the first validation.

        Raises UserError for a Hyperband without an end, or that ends before it begins.
        """
        least, most = self.min_steps or first_rung, self.max_steps or steps
        if self.how == "hyperband" and most is None:
            raise UserError(
                "hyperband: with epochs=... only the corpus says how many steps a "
                "trial has; give hyperband(max_steps=N), or --config.epochs=0 and "
                "--config.steps=N"
            )
        if self.how == "hyperband" and least > most:
            raise UserError(
                f"hyperband: min_steps={least} is more than max_steps={most}"
            )
        return least, most


def asha(**options) -> Pruning:
    """See Pruning."""
    return Pruning("asha", **options)


def hyperband(**options) -> Pruning:
    """See Pruning."""
    return Pruning("hyperband", **options)


@dataclasses.dataclass(frozen=True)
class Space:
    """What a sweep tries, and what it looks for.

    Attributes:
      trials: how many, unless --trials says; None: all points.
      metric: of the validation split, or "train/NAME"; None: the one that chooses
        checkpoints.
      direction: "min" or "max", of a metric the task does not know.
      value: a trial counts by the "best" of its lines, or by the "last".
      pruning: None: no trial is stopped early.
      retries: how often a trial that fails is tried again.
      seed: of what is drawn.
    """

    points: Points
    trials: int | None = None
    metric: str | None = None
    direction: str | None = None
    value: str = "best"
    pruning: Pruning | None = None
    retries: int = 1
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.points, Points):
            raise UserError(
                f"Space({self.points!r}): points are grid(...), random(...)"
            )
        if self.value not in ("best", "last"):
            raise UserError(f"value={self.value!r}: there are best, last")
        for direction in (self.direction, self.pruning and self.pruning.direction):
            if direction not in (None, "min", "max"):
                raise UserError(f"direction={direction!r}: there are min, max")

    def point(self, number: int) -> Point:
        """That of a trial."""
        return self.points.point(number, self.seed)

    def num_trials(self, asked: int | None) -> int:
        """How many there shall be. Raises UserError where that cannot be said."""
        wanted = self.trials if asked is None else asked
        size = self.points.size
        if wanted is None and size is None:
            raise UserError("the space has no end: say how many with --trials=N")
        if wanted is not None and wanted < 1:
            raise UserError(f"--trials={wanted}: at least 1")
        if asked is not None and size is not None and asked > size:
            raise UserError(f"--trials={asked}: the space has {size} points")
        return min(count for count in (wanted, size) if count is not None)

    def describe(self) -> dict:
        """As JSON; without `trials` and `retries`, which may change."""
        fields = dataclasses.asdict(dataclasses.replace(self, points=Listed(())))
        kept = {key: fields[key] for key in ("metric", "direction", "value", "seed")}
        return {**kept, "pruning": fields["pruning"], "points": self.points.describe()}


def choice(*values) -> Choice:
    """One of some values."""
    return Choice(values)


def listed(points: Sequence[Point]) -> Points:
    """Just these points: [{"optim.lr": 1e-3, "seed": 1}, ...]."""
    return Listed(tuple(dict(point) for point in points))


def grid(values: Mapping[str, Sequence]) -> Points:
    """Every combination of some keys' values; the last key runs fastest."""
    for key, row in values.items():
        if isinstance(row, str) or not isinstance(row, Sequence) or not row:
            raise UserError(f"grid: {key} needs a list of values, got {row!r}")
    parts = [listed([{key: value} for value in row]) for key, row in values.items()]
    return parts[0] if len(parts) == 1 else Product(tuple(parts))


def seeds(count: int, first: int = 0) -> Points:
    """The experiment again with other parameters and dropout, in the same order."""
    return grid({"seed": range(first, first + count)})


def random(ranges: Mapping[str, Distribution], size: int | None = None) -> Points:
    """Points that are drawn independently (Bergstra and Bengio 2012)."""
    return _drawn("random", ranges, size)


def quasi_random(ranges: Mapping[str, Distribution], size: int | None = None) -> Points:
    """Points that fill the space more evenly than random ones."""
    return _drawn("quasi_random", ranges, size)


def tpe(ranges: Mapping[str, Distribution], size: int | None = None) -> Points:
    """Points that the results before them suggest (Bergstra et al. 2011)."""
    return _drawn("tpe", ranges, size)


def _drawn(how: str, ranges: Mapping[str, Any], size: int | None) -> Points:
    for key, within in ranges.items():
        if not isinstance(within, Distribution):
            raise UserError(
                f"{how}: {key} needs uniform, log_uniform, integers or choice, "
                f"got {within!r}"
            )
    return Drawn(how, dict(ranges), size)


def product(*parts: Points) -> Points:
    """Each point of a part with each of the others; the last part runs fastest."""
    return Product(parts)


def zipped(*parts: Points) -> Points:
    """The first points of all parts together, then the second ones, ..."""
    return Zip(parts)


def chained(*parts: Points) -> Points:
    """All points of the first part, then those of the next."""
    return Chain(parts)


def read_space(path: str) -> Space:
    """The space of a file. Raises UserError where there is none."""
    file = Path(path)
    if not file.is_file():
        known = [str(p) for p in sorted(Path("configs/sweeps").glob("[!_]*.py"))]
        raise UserError(f"space {path} does not exist; there are {', '.join(known)}")
    spec = importlib.util.spec_from_file_location("space", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        space = module.get_space()
    except UserError as error:
        raise UserError(f"space {path}: {error}") from error
    except (AttributeError, SyntaxError, ImportError, TypeError, NameError) as error:
        raise UserError(f"space {path}: {type(error).__name__}: {error}") from error
    if not isinstance(space, Space):
        raise UserError(f"space {path}: get_space() gave {space!r}, not a Space")
    return space
