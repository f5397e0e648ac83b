"""How a sweep goes, on the console: a live table on a terminal, lines elsewhere."""

import collections
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from sweeps import ledger
from sweeps.ledger import Slot
from sweeps.objective import Metric, rows_of
from sweeps.trial_configs import point_in_words, value_in_words


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a trial is, from the end of its metrics.jsonl."""

    step: int
    words: str

    @classmethod
    def of(cls, path: Path) -> "Progress | None":
        """None: nothing was logged yet."""
        if not (rows := rows_of(path)):
            return None
        row = rows[-1]
        return cls(
            row["step"], f"{row['split']} loss {row.get('loss') or 'not finite'}"
        )


class Table:
    """Writes only what is new.

    Attributes:
      steps: of a trial; None: nobody knows.
      workers: trials at once, here.
    """

    def __init__(
        self,
        metric: Metric,
        steps: int | None,
        workers: int,
        out: TextIO | None = None,
    ):
        self.metric, self.steps, self.workers = metric, steps, workers
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.height = 0
        self.last = ""

    def show(
        self, slots: Sequence[Slot], progress: Mapping[int, Progress | None]
    ) -> None:
        """Args: progress: of this process's trials, by slot."""
        shares = [self._share(found) for found in progress.values()]
        head = summary(slots, self.metric, self.workers, shares)
        if not self.live:
            key = head.rpartition(",")[0]  # without the time, which always changes
            if key != self.last:
                print(head, file=self.out, flush=True)
            self.last = key
            return
        rows = [self._row(slot, progress.get(slot.number)) for slot in slots]
        lines = [head, *(row for row in rows if row)]
        back = f"\x1b[{self.height}A\x1b[J" if self.height else ""
        print(back + "\n".join(line[:120] for line in lines), file=self.out, flush=True)
        self.height = len(lines)

    def _share(self, progress: Progress | None) -> float:
        """Of a trial, what is done; a point may have other steps than the config."""
        if progress is None or self.steps is None:
            return 0.0
        return min(1.0, progress.step / self.steps)

    def _row(self, slot: Slot, progress: Progress | None) -> str:
        """A line for a trial that runs."""
        if slot.state != ledger.RUNNING:
            return ""
        point = point_in_words(slot.last.point or {})
        where = "elsewhere, or starting"
        if progress:
            of = "" if self.steps is None else f"/{self.steps}"
            where = f"step {progress.step}{of}  {progress.words}"
        return f"  {slot.number:>4}  {point}  {where}"


def summary(
    slots: Sequence[Slot], metric: Metric, workers: int, shares: Sequence[float] = ()
) -> str:
    """One line: how many trials are in which state, the best, the time left."""
    counts = collections.Counter(slot.state for slot in slots)
    parts = [f"{counts[ledger.DONE]} done"]
    for state in (ledger.RUNNING, ledger.PRUNED, ledger.DIVERGED, ledger.FAILED):
        if counts[state] or state == ledger.RUNNING:
            parts.append(f"{counts[state]} {state}")
    if (best := best_slot(slots, metric)) is not None:
        value = value_in_words(best.last.value)
        parts.append(f"best {metric.words} {value} (trial {best.number})")
    left = time_left(slots, workers, shares)
    parts.append("time left unknown" if left is None else f"{_clock(left)} left")
    return f"{len(slots)} trials: {', '.join(parts)}"


def best_slot(slots: Sequence[Slot], metric: Metric) -> Slot | None:
    """The best of those that are done; the first of equals."""
    done = [slot for slot in slots if slot.state == ledger.DONE]
    if not done:
        return None
    return max(done, key=lambda s: (metric.sign * s.last.value, -s.number))


def time_left(
    slots: Sequence[Slot], workers: int, shares: Sequence[float]
) -> float | None:
    """Seconds, if the others take as long as those that have ended.

    Args:
      shares: how much of each trial that runs here is done.
    """
    ended = [slot.seconds for slot in slots if slot.state in ledger.ENDED]
    if not ended:
        return None
    states = [slot.state for slot in slots]
    running = states.count(ledger.RUNNING)
    missing = states.count(ledger.OPEN) + running - sum(shares)
    return statistics.mean(ended) * missing / max(workers, running)


def final_table(slots: Sequence[Slot], metric: Metric) -> str:
    """All trials, the best first; at the end those that failed, with their errors."""
    order = {state: place for place, state in enumerate(ledger.ENDED)}

    def rank(slot: Slot):
        value = slot.last.value if slot.last and slot.last.value is not None else None
        good = -metric.sign * value if value is not None else 0
        return order.get(slot.state, len(order)), good, slot.number

    lines = [f"{'trial':>5}  {'state':8}  {metric.words:>12}  point"]
    for slot in sorted(slots, key=rank):
        last = slot.last
        value = "" if last is None or last.value is None else value_in_words(last.value)
        point = point_in_words(last.point or {}) if last else ""
        lines.append(f"{slot.number:>5}  {slot.state:8}  {value:>12}  {point}")
        if slot.state == ledger.FAILED:
            lines.append(f"{'':>5}  {last.error}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
