"""Progress of a sweep: a live table on a terminal, plain lines elsewhere."""

import collections
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps import trial_state
from sweeps.objective import Metric
from sweeps.trial_configs import format_point, format_value
from sweeps.trial_state import Trial

WIDTH = 160  # of tables that do not go to a terminal


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

    def show(self, trials: Sequence[Trial], logs: Mapping[int, Sequence[dict]]) -> None:
        """Draws the table, or writes the summary line if it has changed.

        Args:
          logs: trial number -> lines of the log, for the trials of this process.
        """
        # A point may set more steps than the config.
        fractions = [
            min(1.0, rows[-1]["step"] / self.steps) if rows and self.steps else 0.0
            for rows in logs.values()
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
                if rows := logs.get(trial.number):
                    loss = format_value(rows[-1].get("loss") or "not finite")
                    cells = [
                        f"{rows[-1]['step']}{total}",
                        f"{rows[-1]['split']} loss {loss}",
                    ]
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
        value = format_value(best.value)
        parts.append(f"best {metric.spec} {value} (trial {best.number})")
    left = "time left unknown"
    if (seconds := seconds_left(trials, workers, fractions)) is not None:
        minutes, seconds = divmod(round(seconds), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"
    return f"{len(trials)} trials: {', '.join([*parts, left])}"


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Returns the best of the trials that are done, the first of equals."""
    done = [trial for trial in trials if trial.state == trial_state.DONE]
    return max(done, key=lambda t: (metric.sign * t.value, -t.number), default=None)


def seconds_left(
    trials: Sequence[Trial], workers: int, fractions: Sequence[float]
) -> float | None:
    """Estimates the time left from the mean duration of the trials that ended."""
    ended = [
        trial.total("seconds") for trial in trials if trial.state in trial_state.ENDED
    ]
    if not ended:
        return None
    states = [trial.state for trial in trials]
    running = states.count(trial_state.RUNNING)
    missing = states.count(trial_state.OPEN) + running - sum(fractions)
    return statistics.mean(ended) * missing / max(workers, running)


def results_table(trials: Sequence[Trial], metric: Metric) -> Table:
    """Returns a table of all trials, best first and failed ones last, with totals.

    Chip-hours are the hours of a trial times its devices. Lost hours are those after
    the newest checkpoint of attempts that were cut off.
    """
    table = Table(box=None, pad_edge=False, show_footer=True)
    costs = [
        [trial.total(key) / 3600 for trial in trials]
        for key in ("chip_seconds", "lost_seconds")
    ]
    for name in ("trial", "state", metric.spec, "step", "attempts"):
        table.add_column(name, "total" if name == "trial" else "", no_wrap=True)
    for name, hours in zip(("chip-hours", "lost hours"), costs, strict=True):
        table.add_column(name, f"{sum(hours):.2f}", justify="right", no_wrap=True)
    table.add_column("point", overflow="fold")

    def rank(row):
        trial = row[0]
        state = [*trial_state.ENDED, trial_state.RUNNING, trial_state.OPEN]
        score = 0 if trial.value is None else -metric.sign * trial.value
        return state.index(trial.state), score, trial.number

    for trial, *hours in sorted(zip(trials, *costs, strict=True), key=rank):
        step = trial.last and trial.last.newest.get("step")
        table.add_row(
            str(trial.number),
            trial.state,
            "" if trial.value is None else format_value(trial.value),
            "" if step is None else str(step),
            str(len(trial.attempts)),
            *(f"{x:.2f}" for x in hours),
            Text(trial.error or format_point(trial.point or {})),
        )
    return table


def print_results(trials: Sequence[Trial], metric: Metric) -> None:
    """Prints `results_table`, as wide as the terminal if there is one."""
    width = None if sys.stdout.isatty() else WIDTH
    Console(width=width).print(results_table(trials, metric))
