"""The hook of observers: they are called before a step, at multiples of an interval.

An observer runs a compiled program of its own. The training step stays the program
that it is without observers, so results are the same to the bit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Observer(NamedTuple):
    """Function that sees the inputs of some training steps.

    Attributes:
      every: interval in steps, at least 1.
      observe: called with the number of the step that follows, counted from 1, and
        the step's inputs. The step donates them, so they are valid until the call
        returns.
    """

    every: int
    observe: Callable[..., None]


def notify(observers: Sequence[Observer]) -> Callable[..., None] | None:
    """Returns (step, *inputs), which calls observers; None without any."""

    def observe(step: int, *inputs) -> None:
        for observer in observers:
            if step % observer.every == 0:
                observer.observe(step, *inputs)

    return observe if observers else None
