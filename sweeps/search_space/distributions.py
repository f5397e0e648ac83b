"""What one key of a config may be: a range or a list of choices.

Plain values that know no sampler: `at` is the inverse of the distribution function,
so that whoever has numbers in [0, 1) has values.
"""

import dataclasses
import math
from typing import Any

from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number in [low, high]."""

    low: float
    high: float

    def __post_init__(self):
        _check_order(self)

    def at(self, share: float) -> float:
        return float(self.low + share * (self.high - self.low))

    def __contains__(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A positive number in [low, high]; each factor of it is as likely."""

    low: float
    high: float

    def __post_init__(self):
        _check_order(self)
        if self.low <= 0:
            raise UserError(
                f"log_uniform({self.low}, {self.high}): low must be above 0"
            )

    def at(self, share: float) -> float:
        low, high = math.log(self.low), math.log(self.high)
        found = math.exp(low + share * (high - low))
        return float(min(max(found, self.low), self.high))

    def __contains__(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Integers:
    """A whole number from low to high, both included.

    Attributes:
      log: whether each factor, instead of each number, is as likely.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self):
        _check_order(self)
        if self.log and self.low < 1:
            raise UserError(f"integers({self.low}, {self.high}): log needs low >= 1")

    def at(self, share: float) -> int:
        if self.log:
            edges = LogUniform(self.low - 0.5, self.high + 0.5)
            return min(max(round(edges.at(share)), self.low), self.high)
        return self.low + int(share * (self.high - self.low + 1))

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values, each as likely."""

    values: tuple

    def __post_init__(self):
        if not self.values:
            raise UserError("choice() needs at least one value")

    def at(self, share: float) -> Any:
        return self.values[int(share * len(self.values))]

    def __contains__(self, value: Any) -> bool:
        return value in self.values


Distribution = Uniform | LogUniform | Integers | Choice


def describe(distribution: Distribution) -> dict:
    """As JSON, so that two descriptions can be compared."""
    fields = dataclasses.asdict(distribution)
    return {"kind": type(distribution).__name__, **fields}


def told(distribution: Distribution) -> str:
    """For people, as `LogUniform(0.0001, 0.01)`."""
    values = dataclasses.astuple(distribution)
    if isinstance(distribution, Choice):
        values = distribution.values
    return f"{type(distribution).__name__}({', '.join(map(repr, values))})"


def _check_order(distribution: Uniform | LogUniform | Integers) -> None:
    low, high = distribution.low, distribution.high
    if not (_is_number(low) and _is_number(high) and low < high):
        raise UserError(f"{told(distribution)}: low must be a number below high")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
