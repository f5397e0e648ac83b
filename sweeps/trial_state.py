"""States of a sweep's trials, derived from the documents of the attempts at them.

Trial n of a sweep is point n of the search space. A process runs it in an attempt:

study/0003/attempt-0.json       created when the attempt starts: point and process
study/0003/attempt-0.live.json  overwritten by that process: how far it is
study/0003/attempt-0.end.json   created when the attempt ends: its outcome

When the process of an attempt has died, another one creates the end and then the next
attempt, which resumes the trial. Documents are created once (sweeps/storage.py), so
that an attempt has one owner and one end. Everything here is a function of them.
"""

import contextlib
import dataclasses
import functools
import os
import re
import socket
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import psutil

from sweeps.search_space import Point

# States of a trial.
OPEN, RUNNING = "open", "running"
DONE, PRUNED, DIVERGED, FAILED = "done", "pruned", "diverged", "failed"
ENDED = (DONE, PRUNED, DIVERGED, FAILED)
INTERRUPTED = "interrupted"  # further outcome of an attempt: its trial is open again

RENEWAL_SECONDS = 30.0  # between two renewals of a lease
EXPIRY_SECONDS = 180.0  # without a renewal: the process counts as dead
LEASE_SECONDS = 150.0  # without a renewal: the process ends its trial by itself

NAME = re.compile(r"study/(\d+)/attempt-(\d+)(|\.live|\.end)\.json")
START, LIVE, END = "", ".live", ".end"


def document_name(trial: int, index: int, kind: str) -> str:
    """Returns the name of a document of an attempt: START, LIVE or END."""
    return f"study/{trial:04}/attempt-{index}{kind}.json"


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


def this_process() -> dict:
    """Returns what identifies this process: machine, pid and start time."""
    pid = os.getpid()
    return {
        "machine": machine_id(),
        "pid": pid,  # process ids are reused
        "start_time": process_start_time(pid),
    }


def seconds_since_boot() -> float:
    """Returns the time by a clock that also runs while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclasses.dataclass(frozen=True)
class Attempt:
    """Attempt of one process to run a trial.

    Attributes:
      index: number of the attempt among those of its trial, from 0.
      start: document of its start.
      live: newest document of its progress that was read, if it has no end.
      end: document of its end; None: it runs, or its process died.
    """

    trial: int
    index: int
    start: dict
    live: dict | None = None
    end: dict | None = None

    @property
    def outcome(self) -> str | None:
        """One of ENDED, or INTERRUPTED; None without an end."""
        return self.end and self.end["outcome"]

    @property
    def newest(self) -> dict:
        """The document that tells how far the attempt came."""
        return self.end or self.live or {}

    @property
    def values(self) -> dict[int, float]:
        """Values of the pruning metric by step."""
        return {int(step): x for step, x in self.newest.get("values", {}).items()}


@dataclasses.dataclass
class LivenessMonitor:
    """Decides from documents which processes are alive.

    A process of this machine is looked up. One of another machine is dead when it has
    not renewed its lease for EXPIRY_SECONDS by the clock of this machine, so that
    clocks need not agree.

    Attributes:
      machine: id of this machine; None: `machine_id`.
      clock: returns seconds.
      start_time: returns the start time of a process; None: it has ended.
    """

    machine: str | None = None
    clock: Callable[[], float] = time.monotonic
    start_time: Callable[[int], float | None] = process_start_time

    def __post_init__(self):
        self.machine = self.machine or machine_id()
        self.last_change: dict[Hashable, tuple[int, float]] = {}

    def is_alive(self, attempt: Attempt) -> bool:
        """Returns whether the process of an attempt without an end is alive."""
        process = attempt.start
        if process["machine"] == self.machine:
            return self.start_time(process["pid"]) == process["start_time"]
        key, renewal = (attempt.trial, attempt.index), attempt.newest.get("renewal", -1)
        previous, since = self.last_change.get(key, (None, 0.0))
        if previous != renewal:
            self.last_change[key] = renewal, self.clock()
            return True
        return self.clock() - since < EXPIRY_SECONDS


@dataclasses.dataclass(frozen=True)
class Trial:
    """Trial of a sweep, its state and its attempts."""

    number: int
    state: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Attempt | None:
        """The newest attempt, if there is one."""
        return self.attempts[-1] if self.attempts else None

    @property
    def point(self) -> Point | None:
        """The point, once an attempt has started."""
        return self.last and self.last.start["point"]

    @property
    def value(self) -> float | None:
        """Final value of the objective, if the trial has ended."""
        return self.last.newest.get("value") if self.state in ENDED else None

    @property
    def error(self) -> str | None:
        """Why the trial failed, if it did."""
        return self.last.newest.get("error") if self.state in ENDED else None

    @property
    def values(self) -> dict[int, float]:
        """Values of the pruning metric by step, over all attempts."""
        return {k: v for attempt in self.attempts for k, v in attempt.values.items()}

    def total(self, key: str) -> float:
        """Returns the sum of "seconds", "chip_seconds" or "lost_seconds"."""
        return sum(attempt.newest.get(key) or 0.0 for attempt in self.attempts)

    def to_json(self) -> dict:
        """Returns a line of trials.jsonl, with the costs of ended attempts."""
        has_ended = self.state in ENDED
        attempts = tuple(attempt for attempt in self.attempts if attempt.end)
        ended = dataclasses.replace(self, attempts=attempts)
        return {
            "trial": self.number,
            "state": self.state,
            "point": self.point,
            "value": self.value,
            "step": self.last.newest.get("step") if has_ended else None,
            "attempts": len(self.attempts),
            **{
                key: round(ended.total(key), 3)
                for key in ("seconds", "chip_seconds", "lost_seconds")
            },
            "error": self.error,
        }


def make_trial(
    number: int,
    attempts: tuple[Attempt, ...],
    retries: int,
    is_alive: Callable[[Attempt], bool],
) -> Trial:
    """Returns a trial with its state.

    Args:
      attempts: all attempts, in order.
      retries: number of times that a failed trial is run again.
      is_alive: whether the process of an attempt without an end is alive.
    """
    outcomes = [attempt.outcome for attempt in attempts]
    if not outcomes or outcomes[-1] == INTERRUPTED:
        state = OPEN
    elif outcomes[-1] is None:
        state = RUNNING if is_alive(attempts[-1]) else OPEN
    elif outcomes[-1] == FAILED and outcomes.count(FAILED) <= retries:
        state = OPEN
    else:
        state = outcomes[-1]
    return Trial(number, state, attempts)
