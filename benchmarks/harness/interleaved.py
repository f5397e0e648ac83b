"""Who is timed when: turns on a machine that may have other work.

A round asks every subject for some steps, A B C ..., and the next round C B A, so
that what drifts meets all alike. What others used of the processors meanwhile is read
from /proc/stat; a chunk that was disturbed is repeated, and the quietest one counts.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.protocol import Missing, Process

TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      steps: of a chunk.
      threshold: share of the processors that others may use of a chunk.
      tries: for a chunk, at most.
      warm: steps before any counts.
      patience: seconds to wait, before a chunk, for others to be done.
    """

    rounds: int = 4
    steps: int = 2
    threshold: float = 0.06
    tries: int = 3
    warm: int = 3
    patience: float = 0.0


@dataclasses.dataclass
class Times:
    """Of one subject.

    Attributes:
      first: seconds of the first step, with its compilation.
      seconds: of each step that counts.
      others: of each chunk that counts, the share that others used.
    """

    first: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    others: list[float] = dataclasses.field(default_factory=list)


def busy_seconds() -> tuple[float, float]:
    """Of all processors since the machine started: at work, and in all."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, waiting, *rest = map(int, fields)
    working = user + nice + system + sum(rest)
    return working / TICK, (working + idle + waiting) / TICK


def own_seconds(pid: int) -> float:
    """That a process has computed."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def share_of_others(before: tuple[float, float], own: float) -> float:
    """Of the processors since `before`, but for `own` seconds."""
    working, total = (
        now - then for now, then in zip(busy_seconds(), before, strict=True)
    )
    return max(0.0, working - own) / total if total else 0.0


def wait_for_quiet(plan: Plan) -> None:
    """Until nobody computes, or patience ends."""
    end = time.monotonic() + plan.patience
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(0.3)
        if share_of_others(before, 0.0) <= plan.threshold:
            return


def chunk(process: Process, plan: Plan) -> tuple[list[float], float]:
    """Seconds of some steps and the share of others, of the quietest try."""
    best: tuple[list[float], float] | None = None
    for _ in range(plan.tries):
        wait_for_quiet(plan)
        before, own = busy_seconds(), own_seconds(process.pid)
        seconds = process.ask("go", plan.steps)
        others = share_of_others(before, own_seconds(process.pid) - own)
        if best is None or others < best[1]:
            best = seconds, others
        if others <= plan.threshold:
            break
    return best


def measure(processes: Sequence[Process], plan: Plan) -> dict[str, Times | Missing]:
    """Times of all, by name; of one that fails, what it said."""
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
