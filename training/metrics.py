"""Training metrics as (sum, weight) pairs, and their way from a step to the log.

Merging is addition and only the end divides, so a mean is exact however its steps
were cut. `TrainProgress` holds the sums and is saved in every checkpoint.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from training.profiling.environment import peak_memory_bytes

WeightedMetrics = dict[str, tuple[jax.Array, jax.Array]]
Totals = dict[str, tuple[float, float]]


def merge(totals: Totals, metrics: WeightedMetrics) -> Totals:
    """Returns the totals with the metrics of one more step, already on the host."""
    sums = dict(totals)
    for name, (value, weight) in metrics.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + float(value), before[1] + float(weight))
    return sums


def compute(totals: Totals) -> dict[str, float]:
    """Returns the weighted mean of each metric; nan where the weight is 0."""
    return {
        name: value / weight if weight else math.nan
        for name, (value, weight) in totals.items()
    }


@dataclasses.dataclass
class TrainProgress:
    """Progress of a run beside its parameters, saved as JSON in every checkpoint."""

    # Since the newest line of the log: (sum, weight) of each metric.
    totals: Totals = dataclasses.field(default_factory=dict)
    last_logged: int = 0  # step of that line
    last_validated: int = 0  # step of the newest validation
    seconds: float = 0.0  # training time without validation and saving
    window_seconds: float = 0.0  # training time since the newest line
    window_flops: int = 0  # since that line (training/profiling/flops.py)
    nonfinite_steps: int = 0  # steps whose loss or gradient was not finite
    # Numbers of those steps since the last finite one.
    consecutive_nonfinite: list[int] = dataclasses.field(default_factory=list)
    best_score: float | None = None  # of all validations; larger is better
    evals_since_best: int = 0  # validations since then

    def reset_nonfinite(self, limit: int) -> None:
        """Lets a run that `limit` non-finite steps stopped try again."""
        if len(self.consecutive_nonfinite) >= limit:
            self.consecutive_nonfinite = []

    def record_validation(self, step: int, selection_score: float) -> None:
        """Counts validations without a better score; nan is never better."""
        self.last_validated = step
        better = self.best_score is None or selection_score > self.best_score
        if math.isfinite(selection_score) and better:
            self.best_score, self.evals_since_best = selection_score, 0
        else:
            self.evals_since_best += 1


class MetricLogger:
    """Adds up the metrics of steps and writes a line every `log_every` steps."""

    def __init__(
        self,
        progress: TrainProgress,
        write: Callable[[int, str, dict[str, float]], None],
        log_every: int,
        peak_flops: float | None = None,
    ):
        """Starts the clock of training.

        Args:
          write: writes a line of (step, split, metrics).
          log_every: steps between two lines; 0: only the last step has one.
          peak_flops: FLOP/s of all devices together; None: no `mfu` is logged.
        """
        self.progress, self.write, self.log_every = progress, write, log_every
        self.peak_flops = peak_flops
        self._data_wait = 0.0
        self._mark = time.monotonic()

    def add(
        self,
        step: int,
        metrics: WeightedMetrics,
        data_wait: float,
        flops: int,
        *,
        log: bool = False,
    ) -> None:
        """Adds the metrics of a step, already on the host; may write a line.

        Args:
          data_wait: seconds the step waited for its batch.
          flops: FLOPs of the step.
          log: write a line whatever `log_every` says.
        """
        progress = self.progress
        if float(metrics["nonfinite_steps"][0]):
            progress.nonfinite_steps += 1
            progress.consecutive_nonfinite = [*progress.consecutive_nonfinite, step]
        else:
            progress.consecutive_nonfinite = []
        progress.totals = merge(progress.totals, metrics)
        progress.window_flops += flops
        self._data_wait += data_wait
        if log or (self.log_every and step % self.log_every == 0):
            self._write_line(step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes validation and saving from the time of training."""
        self._advance_clock()
        yield
        self._mark = time.monotonic()

    def _advance_clock(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._mark
        self.progress.window_seconds += now - self._mark
        self._mark = now

    def _write_line(self, step: int) -> None:
        self._advance_clock()
        progress = self.progress
        metrics = compute(progress.totals)
        seconds = max(progress.window_seconds, 1e-9)
        metrics["nonfinite_steps"] = progress.nonfinite_steps
        metrics["tokens_per_second"] = progress.totals["loss"][1] / seconds
        metrics["data_wait_fraction"] = min(self._data_wait / seconds, 1.0)
        if self.peak_flops is not None:
            metrics["flops_per_second"] = progress.window_flops / seconds
            metrics["mfu"] = metrics["flops_per_second"] / self.peak_flops
        if (peak := peak_memory_bytes()) is not None:
            metrics["peak_memory_bytes"] = peak
        metrics["seconds"] = progress.seconds
        self.write(step, "train", metrics)
        progress.totals, progress.last_logged = {}, step
        progress.window_seconds, progress.window_flops = 0.0, 0
        self._data_wait = 0.0
