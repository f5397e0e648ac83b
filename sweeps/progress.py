"""Progress of a sweep: a live table on a terminal, plain lines elsewhere."""

import collections
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps import trial_state
from sweeps.objective import Metric, read_metrics
from sweeps.trial_configs import format_point, format_value
from sweeps.trial_state import Trial


@dataclasses.dataclass(frozen=True)
class TrialProgress:
    """Step that a trial has reached, and a summary of what it logged there."""

    step: int
    summary: str

    @classmethod
    def read(cls, path: Path) -> "TrialProgress | None":
        """Reads the last line of a metrics.jsonl; None if there is none yet."""
        if not (rows := read_metrics(path)):
            return None
        row = rows[-1]
        loss = format_value(row.get("loss") or "not finite")
        return cls(row["step"], f"{row['split']} loss {loss}")


class ProgressTable:
    """Table of the trials that run, below a line that sums up the sweep.

    Attributes:
      steps: steps of a trial; None: unknown.
      workers: number of trials that run at once in this process.
      out: stream to write to; stdout by default.
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
        self.live = None
        if self.out.isatty():
            self.live = Live(console=Console(file=self.out), auto_refresh=False)
        self.last_line = ""

    def show(
        self, trials: Sequence[Trial], progress: Mapping[int, TrialProgress | None]
    ) -> None:
        """Draws the table, or writes the summary line if it has changed.

        Args:
          progress: trial number -> progress, for the trials of this process.
        """
        fractions = [self._fraction_done(trial) for trial in progress.values()]
        summary = summarize(trials, self.metric, self.workers, fractions)
        if self.live is None:
            line = summary.rpartition(",")[0]  # the time left always changes
            if line != self.last_line:
                print(summary, file=self.out, flush=True)
            self.last_line = line
            return
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "point", "step", "last metrics"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for trial in trials:
            if trial.state == trial_state.RUNNING:
                table.add_row(*self._cells(trial, progress.get(trial.number)))
        self.live.start()
        head = Text(summary, no_wrap=True, overflow="ellipsis")
        self.live.update(Group(head, table) if table.rows else head, refresh=True)

    def close(self) -> None:
        """Leaves the last table on the terminal and releases the console."""
        if self.live is not None:
            self.live.stop()

    def _fraction_done(self, progress: TrialProgress | None) -> float:
        if progress is None or self.steps is None:
            return 0.0
        # A point may set more steps than the config.
        return min(1.0, progress.step / self.steps)

    def _cells(self, trial: Trial, progress: TrialProgress | None) -> list[str]:
        cells = [str(trial.number), format_point(trial.last.point or {})]
        if progress is None:
            return [*cells, "", "starting, or run by another process"]
        total = "" if self.steps is None else f"/{self.steps}"
        return [*cells, f"{progress.step}{total}", progress.summary]


def summarize(
    trials: Sequence[Trial],
    metric: Metric,
    workers: int,
    fractions: Sequence[float] = (),
) -> str:
    """Returns a line with the number of trials by state, the best and the time left."""
    counts = collections.Counter(trial.state for trial in trials)
    parts = [f"{counts[trial_state.DONE]} done"]
    for state in (trial_state.RUNNING, *trial_state.ENDED[1:]):
        if counts[state] or state == trial_state.RUNNING:
            parts.append(f"{counts[state]} {state}")
    if (best := best_trial(trials, metric)) is not None:
        value = format_value(best.last.value)
        parts.append(f"best {metric.spec} {value} (trial {best.number})")
    left = seconds_left(trials, workers, fractions)
    parts.append("time left unknown" if left is None else f"{_clock(left)} left")
    return f"{len(trials)} trials: {', '.join(parts)}"


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Returns the best of the trials that are done, the first of equals."""
    done = [trial for trial in trials if trial.state == trial_state.DONE]
    if not done:
        return None
    return max(done, key=lambda t: (metric.sign * t.last.value, -t.number))


def seconds_left(
    trials: Sequence[Trial], workers: int, fractions: Sequence[float]
) -> float | None:
    """Estimates the time left from the mean duration of the trials that ended.

    Args:
      fractions: for each trial that runs here, the fraction of it that is done.
    """
    ended = [trial.seconds for trial in trials if trial.state in trial_state.ENDED]
    if not ended:
        return None
    states = [trial.state for trial in trials]
    running = states.count(trial_state.RUNNING)
    missing = states.count(trial_state.OPEN) + running - sum(fractions)
    return statistics.mean(ended) * missing / max(workers, running)


def final_table(trials: Sequence[Trial], metric: Metric) -> str:
    """Formats all trials, best first; failed ones are last, with their errors."""
    order = {state: rank for rank, state in enumerate(trial_state.ENDED)}

    def rank(trial: Trial):
        value = trial.last.value if trial.last else None
        score = -metric.sign * value if value is not None else 0
        return order.get(trial.state, len(order)), score, trial.number

    lines = [f"{'trial':>5}  {'state':8}  {metric.spec:>12}  point"]
    for trial in sorted(trials, key=rank):
        last = trial.last
        value = "" if last is None or last.value is None else format_value(last.value)
        point = format_point(last.point or {}) if last else ""
        lines.append(f"{trial.number:>5}  {trial.state:8}  {value:>12}  {point}")
        if trial.state == trial_state.FAILED:
            lines.append(f"{'':>5}  {last.error}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
