"""The width at which a model costs what it may: all other sizes go with it."""

import dataclasses
import functools
import math
from collections.abc import Callable

from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError

# Sizes that keep their ratio to the width; of 0 they follow it by themselves.
ALONG = (
    *("feed_forward", "embedding_width", "head_dim"),
    *("attention_width", "maxout_width"),
)
NEAR = 0.01  # of the budget: farther off is said

Cost = Callable[[object], float]  # of a config


@dataclasses.dataclass(frozen=True)
class Solved:
    """What a model is given, and what it then costs.

    Attributes:
      model: what follows the colon of --config.
      point: keys of the config, as a space has them.
      cost, target: in the unit of the budget.
    """

    model: str
    point: dict[str, int]
    cost: float
    target: float

    @property
    def miss(self) -> float:
        """How far off, as a share of the budget; below 0: cheaper."""
        return self.cost / self.target - 1

    @property
    def is_near(self) -> bool:
        """Whether models of one budget may be called equal."""
        return abs(self.miss) <= NEAR


def solve_width(
    experiment: TrialConfigs, cost: Cost, target: float, words: Callable[[float], str]
) -> Solved:
    """Of all widths that a model can have, the one that costs nearest to `target`.

    Args:
      cost: of a config; rises with the width.
      words: a cost as text.

    Raises UserError for a budget that the narrowest model exceeds.
    """
    base = experiment.config({}).model
    unit = width_unit(base)

    @functools.cache
    def at(number: int) -> float:
        return cost(experiment.config(sizes(base, unit * number)))

    number = nearest(at, target, start=max(1, base.width // unit))
    if number == 0:
        raise UserError(
            f"a budget of {words(target)} is too small for {experiment.model}: with "
            f"model.width={unit}, its least, it takes {words(at(1))}"
        )
    return Solved(experiment.model, sizes(base, unit * number), at(number), target)


def solve_steps(experiment: TrialConfigs, cost: Cost, target: float) -> Solved:
    """The number of steps at which a model of its own size costs `target`."""
    cfg = experiment.config({})
    a_step = cost(cfg) / cfg.steps
    steps = max(1, round(target / a_step))
    return Solved(experiment.model, {"steps": steps}, steps * a_step, target)


def nearest(at: Callable[[int], float], target: float, *, start: int) -> int:
    """The number from 1 on at which a rising function is nearest to `target`.

    0 where it is too large already at 1.
    """
    low = high = start
    while at(high) < target:  # costs rise at least with the width, so this ends
        low = high
        high = max(high + 1, round(high * _guess(at(high), target)))
    while low > 1 and at(low) > target:
        high = low
        low = max(1, min(low - 1, round(low * _guess(at(low), target))))
    if at(low) > target:
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= target else (low, middle)
    return min((low, high), key=lambda number: abs(at(number) - target))


def _guess(cost: float, target: float) -> float:
    """By what the width is multiplied: matrices grow with its square."""
    return max(0.25, min(4.0, math.sqrt(target / cost)))


def width_unit(model) -> int:
    """What every width of a model must be a multiple of."""
    heads = 1 if model.get("head_dim") else model.get("heads", 1)
    pairs = model.get("position_encoding") in ("sinusoidal", "relative", "rotary")
    if model.get("position_encoding") == "rotary":  # turns pairs within a head
        return 2 * heads
    return math.lcm(heads, 2) if pairs else heads


def sizes(model, width: int) -> dict[str, int]:
    """The sizes of a model of some width, as keys of its config."""
    found = {"model.width": width}
    unused = {"maxout_width"} if model.get("readout") != "maxout" else set()
    for key in ALONG:
        if (size := model.get(key, 0)) and key not in unused:
            scaled = max(1, round(size * width / model.width))
            even = key == "head_dim" and scaled % 2
            found[f"model.{key}"] = scaled + bool(even)
    return found
