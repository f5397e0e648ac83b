"""What became of each trial of a sweep, from the attempts that a storage has.

A trial of a sweep is a slot: a number, and with it a point of the space. Whoever wants
to run it writes down an attempt; of attempts with one slot and one place in its row
the first is valid, which the storage orders for all. So nobody needs a lock, and an
attempt whose process died is followed by the next.
"""

import dataclasses
import datetime
from collections.abc import Callable, Iterable

from sweeps.leases import Lease
from sweeps.search_space import Point

# States of a slot.
OPEN, RUNNING = "open", "running"
DONE, PRUNED, DIVERGED, FAILED = "done", "pruned", "diverged", "failed"
ENDED = (DONE, PRUNED, DIVERGED, FAILED)

# How an attempt ends without an end of its slot.
INTERRUPTED, LOST = "interrupted", "lost"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One process's go at a slot.

    Attributes:
      number: the storage's, rising.
      attempt: its place in the slot's row, from 0.
      outcome: one of ENDED, INTERRUPTED or LOST; None: it runs, or died.
      value: of the objective, and the step it was at.
      seconds: it took; None: nobody knows when it ended.
    """

    number: int
    slot: int
    attempt: int
    outcome: str | None
    lease: Lease | None = None
    point: Point | None = None
    value: float | None = None
    step: int | None = None
    error: str | None = None
    began: datetime.datetime | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Slot:
    """A trial of a sweep.

    Attributes:
      attempts: the valid ones.
    """

    number: int
    state: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def seconds(self) -> float:
        """Of all attempts whose end is known."""
        return sum(attempt.seconds or 0.0 for attempt in self.attempts)

    def to_json(self) -> dict:
        """A line of trials.jsonl."""
        last = self.last
        known = last is not None and self.state != OPEN
        return {
            "trial": self.number,
            "state": self.state,
            "point": last.point if last else None,
            "value": last.value if known else None,
            "step": last.step if known else None,
            "attempts": len(self.attempts),
            "seconds": round(self.seconds, 3),
            "error": last.error if known else None,
        }


def slots(
    attempts: Iterable[Attempt],
    count: int,
    retries: int,
    is_alive: Callable[[Attempt], bool],
) -> list[Slot]:
    """The first `count` slots.

    Args:
      is_alive: whether the process of an attempt without an outcome lives.
    """
    rows: dict[int, dict[int, Attempt]] = {}
    for attempt in sorted(attempts, key=lambda found: found.number):
        if attempt.outcome != LOST:
            rows.setdefault(attempt.slot, {}).setdefault(attempt.attempt, attempt)
    return [
        _slot(number, tuple(row[key] for key in sorted(row)), retries, is_alive)
        for number in range(count)
        for row in [rows.get(number, {})]
    ]


def _slot(number, attempts, retries, is_alive) -> Slot:
    if not attempts:
        return Slot(number, OPEN)
    outcome = attempts[-1].outcome
    if outcome is None:
        outcome = RUNNING if is_alive(attempts[-1]) else OPEN
    failures = sum(attempt.outcome == FAILED for attempt in attempts)
    again = outcome == INTERRUPTED or (outcome == FAILED and failures <= retries)
    return Slot(number, OPEN if again else outcome, attempts)
