"""From the pairs of steps to the lines of the log, without holding up a device.

A step's pairs are read after the next step was sent, so that the device has work
while the host waits for them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from training.metric_writers import MetricWriters
from training.metrics import WeightedMetrics, compute, merge
from training.profiling.memory import peak_memory_bytes
from training.progress import TrainProgress


class MetricLogger:
    """Adds pairs up and writes a line every `log_every` steps."""

    def __init__(
        self,
        progress: TrainProgress,
        writers: MetricWriters,
        log_every: int,
        ceiling: float | None = None,
    ):
        """Args: log_every: in steps; 0: only when `flush` is told to.

        ceiling: FLOP/s of all devices at most; None: steps have no known FLOPs.
        """
        self.progress, self.writers, self.log_every = progress, writers, log_every
        self.ceiling = ceiling
        self._sent: tuple[int, WeightedMetrics, int] | None = None
        self._waited = 0.0
        self._mark = time.monotonic()

    def record(
        self, step: int, pairs: WeightedMetrics, waited: float, flops: int = 0
    ) -> None:
        """Takes a step just sent, and reads the one before.

        Args:
          waited: seconds the step had to wait for its batch.
          flops: of the step.
        """
        self._read()
        self._sent = step, pairs, flops
        self._waited += waited

    def flush(self, *, log: bool = False) -> None:
        """Reads the step sent last, which waits for it; may write a line."""
        self._read(log=log)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not training."""
        self._tick()
        yield
        self._mark = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._mark
        self.progress.window_seconds += now - self._mark
        self._mark = now

    def _read(self, *, log: bool = False) -> None:
        if self._sent is None:
            return
        (step, pairs, flops), self._sent = self._sent, None
        found = jax.device_get(pairs)
        self._count_skipped(step, float(found["nonfinite_steps"][0]))
        self.progress.totals = merge(self.progress.totals, found)
        self.progress.window_flops += flops
        if log or (self.log_every and step % self.log_every == 0):
            self._log(step)

    def _count_skipped(self, step: int, skipped: float) -> None:
        if skipped:
            self.progress.nonfinite_steps += 1
            self.progress.consecutive_nonfinite = [
                *self.progress.consecutive_nonfinite,
                step,
            ]
        else:
            self.progress.consecutive_nonfinite = []

    def _log(self, step: int) -> None:
        self._tick()
        progress = self.progress
        metrics = compute(progress.totals)
        seconds = max(progress.window_seconds, 1e-9)
        metrics["nonfinite_steps"] = progress.nonfinite_steps
        metrics["tokens_per_second"] = progress.totals["loss"][1] / seconds
        metrics["data_wait_fraction"] = min(self._waited / seconds, 1.0)
        if self.ceiling is not None:
            metrics["flops_per_second"] = progress.window_flops / seconds
            metrics["mfu"] = metrics["flops_per_second"] / self.ceiling
        if (peak := peak_memory_bytes()) is not None:
            metrics["peak_memory_bytes"] = peak
        metrics["seconds"] = progress.seconds
        self.writers.write(step, "train", metrics)
        progress.totals, progress.window_seconds, progress.last_logged = {}, 0.0, step
        progress.window_flops = 0
        self._waited = 0.0
