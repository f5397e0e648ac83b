"""States of a sweep's trials, derived from the attempts at them in the storage.

Trial n of a sweep is point n of the search space. A process that wants to run it
writes an attempt with its heartbeat; of several attempts with one index, the first in
the order of the storage is valid, so that no lock is needed. When the process of an
attempt has died, the next attempt resumes the trial.
"""

import contextlib
import dataclasses
import functools
import os
import socket
import time
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import psutil

from sweeps.search_space import Point

# States of a trial.
OPEN, RUNNING = "open", "running"
DONE, PRUNED, DIVERGED, FAILED = "done", "pruned", "diverged", "failed"
ENDED = (DONE, PRUNED, DIVERGED, FAILED)

# Further outcomes of an attempt: its trial is open again; another attempt was first.
INTERRUPTED, LOST = "interrupted", "lost"

HEARTBEAT_SECONDS = 30.0  # between two heartbeats
EXPIRY_SECONDS = 180.0  # without a heartbeat: the process counts as dead


@functools.cache
def machine_id() -> str:
    """Returns an id of the machine since its last boot, and of its process table."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def process_start_time(pid: int) -> float | None:
    """Returns the seconds from boot to a process's start; None if it has ended.

    Both times of psutil follow corrections of the clock; their difference does not.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return round(process.create_time() - psutil.boot_time(), 2)
    except psutil.NoSuchProcess:
        return None


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """Process that runs a trial, and the last time that it reported.

    Attributes:
      machine: see `machine_id`.
      start_time: start of the process, in seconds after its machine was booted, since
        process ids are reused.
      time: seconds since 1970 by the clock of its machine.
    """

    machine: str
    pid: int
    start_time: float
    time: float

    @classmethod
    def current(cls) -> "Heartbeat":
        """Returns a heartbeat of this process."""
        pid = os.getpid()
        return cls(machine_id(), pid, process_start_time(pid), time.time())


@dataclasses.dataclass
class LivenessMonitor:
    """Decides from heartbeats which processes are alive.

    A process of this machine is looked up. One of another machine is dead when its
    heartbeat has not changed for EXPIRY_SECONDS by the clock of this machine, so that
    clocks need not agree.

    Attributes:
      machine: id of this machine.
      clock: returns seconds.
      start_time: returns the start time of a process; None: it has ended.
    """

    machine: str = dataclasses.field(default_factory=machine_id)
    clock: Callable[[], float] = time.monotonic
    start_time: Callable[[int], float | None] = process_start_time

    def __post_init__(self):
        self.last_change: dict[Hashable, tuple[Heartbeat | None, float]] = {}

    def is_alive(self, key: Hashable, heartbeat: Heartbeat | None) -> bool:
        """Returns whether the process that sent a heartbeat is alive.

        Args:
          key: identifies the attempt.
          heartbeat: None for a moment after the attempt was written.
        """
        if heartbeat is not None and heartbeat.machine == self.machine:
            return self.start_time(heartbeat.pid) == heartbeat.start_time
        previous, since = self.last_change.get(key, (None, None))
        if since is None or previous != heartbeat:
            self.last_change[key] = heartbeat, self.clock()
            return True
        return self.clock() - since < EXPIRY_SECONDS


@dataclasses.dataclass(frozen=True)
class TrialAttempt:
    """Attempt of one process to run a trial.

    Attributes:
      storage_number: position in the storage.
      trial: number of the trial.
      index: number of the attempt among those of its trial, from 0.
      outcome: one of ENDED, INTERRUPTED or LOST; None: it runs, or its process died.
      value: final value of the objective, at `step`.
      seconds: duration; None: unknown, as the process was killed.
    """

    storage_number: int
    trial: int
    index: int
    outcome: str | None = None
    heartbeat: Heartbeat | None = None
    point: Point | None = None
    value: float | None = None
    step: int | None = None
    error: str | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """Trial of a sweep, its state and its valid attempts."""

    number: int
    state: str
    attempts: tuple[TrialAttempt, ...] = ()

    @property
    def last(self) -> TrialAttempt | None:
        """The newest attempt, if there is one."""
        return self.attempts[-1] if self.attempts else None

    @property
    def point(self) -> Point | None:
        """The point of the newest attempt, once it is known."""
        return self.last and self.last.point

    @property
    def seconds(self) -> float:
        """Duration of all attempts whose end is known."""
        return sum(attempt.seconds or 0.0 for attempt in self.attempts)

    def to_json(self) -> dict:
        """Returns a line of trials.jsonl."""
        last = self.last
        known = last is not None and self.state != OPEN
        return {
            "trial": self.number,
            "state": self.state,
            "point": self.point,
            "value": last.value if known else None,
            "step": last.step if known else None,
            "attempts": len(self.attempts),
            "seconds": round(self.seconds, 3),
            "error": last.error if known else None,
        }


def group_by_trial(
    attempts: Iterable[TrialAttempt],
    num_trials: int,
    retries: int,
    is_alive: Callable[[TrialAttempt], bool],
) -> list[Trial]:
    """Returns the first `num_trials` trials, each with its state.

    Args:
      is_alive: whether the process of an attempt without an outcome is alive.
    """
    valid: dict[int, dict[int, TrialAttempt]] = {n: {} for n in range(num_trials)}
    for attempt in sorted(attempts, key=lambda attempt: attempt.storage_number):
        if attempt.outcome != LOST and attempt.trial in valid:
            valid[attempt.trial].setdefault(attempt.index, attempt)
    trials = []
    for number, row in valid.items():
        own = tuple(row[index] for index in sorted(row))
        trials.append(Trial(number, _state(own, retries, is_alive), own))
    return trials


def _state(attempts, retries, is_alive) -> str:
    outcomes = [attempt.outcome for attempt in attempts]
    if not outcomes or outcomes[-1] == INTERRUPTED:
        return OPEN
    if outcomes[-1] is None:
        return RUNNING if is_alive(attempts[-1]) else OPEN
    if outcomes[-1] == FAILED and outcomes.count(FAILED) <= retries:
        return OPEN
    return outcomes[-1]
