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


def observed(step: Callable, observers: Sequence[Observer], done: int) -> Callable:
    """Returns a compiled step that calls observers before it is dispatched.

    Args:
      done: number of steps completed so far.
    """

    def call(*inputs):
        nonlocal done
        done += 1
        for every, observe in observers:
            if done % every == 0:
                observe(done, *inputs)
        return step(*inputs)

    return call
