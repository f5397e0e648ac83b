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


@dataclasses.dataclass
class ProgressTable:
    """Table of the trials that run, below a line that sums up the sweep.

    Attributes:
      steps: steps of a trial; None: unknown.
      workers: number of trials that run at once in this process.
      out: stream to write to; stdout by default.
    """

    metric: Metric
    steps: int | None
    workers: int
    out: TextIO = dataclasses.field(default_factory=lambda: sys.stdout)

    def __post_init__(self):
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
        # A point may set more steps than the config.
        fractions = [
            min(1.0, trial.step / self.steps) if trial and self.steps else 0.0
            for trial in progress.values()
        ]
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
        total = "" if self.steps is None else f"/{self.steps}"
        for trial in trials:
            if trial.state == trial_state.RUNNING:
                cells = ["", "starting, or run by another process"]
                if reached := progress.get(trial.number):
                    cells = [f"{reached.step}{total}", reached.summary]
                point = format_point(trial.point or {})
                table.add_row(str(trial.number), point, *cells)
        self.live.start()
        head = Text(summary, no_wrap=True, overflow="ellipsis")
        self.live.update(Group(head, table) if table.rows else head, refresh=True)

    def close(self) -> None:
        """Leaves the last table on the terminal and releases the console."""
        if self.live is not None:
            self.live.stop()


def summarize(
    trials: Sequence[Trial],
    metric: Metric,
    workers: int,
    fractions: Sequence[float] = (),
) -> str:
    """Returns a line with the number of trials by state, the best and the time left.

    Args:
      fractions: for each trial that runs here, the fraction of it that is done.
    """
    counts = collections.Counter(trial.state for trial in trials)
    parts = [
        f"{counts[trial_state.DONE]} done",
        f"{counts[trial_state.RUNNING]} running",
    ]
    parts += [f"{counts[s]} {s}" for s in trial_state.ENDED[1:] if counts[s]]
    if (best := best_trial(trials, metric)) is not None:
        value = format_value(best.last.value)
        parts.append(f"best {metric.spec} {value} (trial {best.number})")
    left = "time left unknown"
    if (seconds := seconds_left(trials, workers, fractions)) is not None:
        minutes, seconds = divmod(round(seconds), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"
    return f"{len(trials)} trials: {', '.join([*parts, left])}"


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Returns the best of the trials that are done, the first of equals."""
    done = [trial for trial in trials if trial.state == trial_state.DONE]
    return max(
        done, key=lambda t: (metric.sign * t.last.value, -t.number), default=None
    )


def seconds_left(
    trials: Sequence[Trial], workers: int, fractions: Sequence[float]
) -> float | None:
    """Estimates the time left from the mean duration of the trials that ended."""
    ended = [trial.seconds for trial in trials if trial.state in trial_state.ENDED]
    if not ended:
        return None
    states = [trial.state for trial in trials]
    running = states.count(trial_state.RUNNING)
    missing = states.count(trial_state.OPEN) + running - sum(fractions)
    return statistics.mean(ended) * missing / max(workers, running)


def final_table(trials: Sequence[Trial], metric: Metric) -> str:
    """Formats all trials, best first; failed ones are last, with their errors."""
    ranks = {state: rank for rank, state in enumerate(trial_state.ENDED)}
    rows = []
    for trial in trials:
        last = trial.last
        value = last.value if last else None
        cell = "" if value is None else format_value(value)
        point = format_point(trial.point or {})
        row = f"{trial.number:>5}  {trial.state:8}  {cell:>12}  {point}"
        if trial.state == trial_state.FAILED:
            row += f"\n{'':>5}  {last.error}"
        score = 0 if value is None else -metric.sign * value
        rows.append((ranks.get(trial.state, len(ranks)), score, trial.number, row))
    head = f"{'trial':>5}  {'state':8}  {metric.spec:>12}  point"
    return "\n".join([head, *(row for *_, row in sorted(rows))])
