"""Interleaved timing of several processes on a shared machine.

A round times some steps of every process, A B C ..., and the next round C B A, so that
drift affects all alike. A chunk that other processes
disturb is repeated, and the quietest one counts.
"""

import dataclasses
import time
from collections.abc import Sequence

import psutil

from benchmarks.harness.protocol import Missing, Process


def option(default, help: str | None = None):
    """Returns a field of `Plan` that is a command-line option."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Plan:
    """Number of rounds, steps and repetitions, each a command-line option."""

    rounds: int = option(4)
    steps: int = option(2, "of a chunk")
    threshold: float = option(
        0.06, "share of the processors that others may use before a chunk is repeated"
    )
    tries: int = option(3, "of a chunk")
    warm: int = option(3, "steps before")
    patience: float = option(0.0, "seconds to wait for a quiet machine before a chunk")


@dataclasses.dataclass
class Times:
    """Measured times of one process.

    Attributes:
      first: seconds of the first step, compilation included.
      seconds: seconds of each step.
      others: CPU fraction of other processes in each chunk.
    """

    first: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    others: list[float] = dataclasses.field(default_factory=list)


def busy_seconds() -> tuple[float, float]:
    """Returns busy and total CPU seconds since the machine started."""
    times = psutil.cpu_times()
    total = sum(times[:8])  # the guests' that follow are a part of the user's
    return total - times.idle - times.iowait, total


def own_seconds(pid: int) -> float:
    """Returns the CPU seconds of a process."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def share_of_others(before: tuple[float, float], own: float) -> float:
    """Returns the CPU fraction since `before` without `own` seconds."""
    working, total = (
        now - then for now, then in zip(busy_seconds(), before, strict=True)
    )
    return max(0.0, working - own) / total if total else 0.0


def wait_for_quiet(plan: Plan) -> None:
    """Waits until the machine is quiet or patience ends."""
    end = time.monotonic() + plan.patience
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(0.3)
        if share_of_others(before, 0.0) <= plan.threshold:
            return


def chunk(process: Process, plan: Plan) -> tuple[list[float], float]:
    """Times one chunk; returns its seconds and the load, of the quietest try."""
    tries: list[tuple[list[float], float]] = []
    for _ in range(plan.tries):
        wait_for_quiet(plan)
        before, own = busy_seconds(), own_seconds(process.pid)
        seconds = process.ask("go", plan.steps)
        others = share_of_others(before, own_seconds(process.pid) - own)
        tries.append((seconds, others))
        if others <= plan.threshold:
            break
    return min(tries, key=lambda one: one[1])


def measure(processes: Sequence[Process], plan: Plan) -> dict[str, Times | Missing]:
    """Returns the times of all processes by name, or the error of one that failed."""
    found: dict[str, Times | Missing] = {}
    for process in processes:
        try:
            found[process.name] = Times(process.ask("warm", plan.warm)[0])
        except Missing as error:
            found[process.name] = error
    for number in range(plan.rounds):
        for process in processes[:: -1 if number % 2 else 1]:
            times = found[process.name]
            if isinstance(times, Missing):
                continue
            try:
                seconds, others = chunk(process, plan)
            except Missing as error:
                found[process.name] = error
                continue
            times.seconds += seconds
            times.others.append(others)
    return found
