"""From the pairs of steps to the lines of the log, without holding up a device.

A step's pairs are read after the next step was sent, so that the device has work
while the host waits for them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from training.metric_writers import Writers
from training.metrics import Pairs, added, means
from training.profiling.memory import peak_memory_bytes
from training.progress import Progress


class Meter:
    """Adds pairs up and writes a line every `log_every` steps."""

    def __init__(
        self,
        progress: Progress,
        writers: Writers,
        log_every: int,
        ceiling: float | None = None,
    ):
        """Args: log_every: in steps; 0: only when `flush` is told to.

        ceiling: FLOP/s of all devices at most; None: steps have no known FLOPs.
        """
        self.progress, self.writers, self.log_every = progress, writers, log_every
        self.ceiling = ceiling
        self._sent: tuple[int, Pairs, int] | None = None
        self._waited = 0.0
        self._mark = time.monotonic()

    def push(self, step: int, pairs: Pairs, waited: float, flops: int = 0) -> None:
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
        self.progress.lap += now - self._mark
        self._mark = now

    def _read(self, *, log: bool = False) -> None:
        if self._sent is None:
            return
        (step, pairs, flops), self._sent = self._sent, None
        found = jax.device_get(pairs)
        self._count_skipped(step, float(found["skipped"][0]))
        self.progress.totals = added(self.progress.totals, found)
        self.progress.flops += flops
        if log or (self.log_every and step % self.log_every == 0):
            self._log(step)

    def _count_skipped(self, step: int, skipped: float) -> None:
        if skipped:
            self.progress.skipped += 1
            self.progress.in_a_row = [*self.progress.in_a_row, step]
        else:
            self.progress.in_a_row = []

    def _log(self, step: int) -> None:
        self._tick()
        progress = self.progress
        metrics = means(progress.totals)
        seconds = max(progress.lap, 1e-9)
        metrics["skipped"] = progress.skipped
        metrics["tokens_per_second"] = progress.totals["loss"][1] / seconds
        metrics["waiting"] = min(self._waited / seconds, 1.0)
        if self.ceiling is not None:
            metrics["flops_per_second"] = progress.flops / seconds
            metrics["utilisation"] = metrics["flops_per_second"] / self.ceiling
        if (peak := peak_memory_bytes()) is not None:
            metrics["peak_memory_bytes"] = peak
        metrics["seconds"] = progress.seconds
        self.writers.write(step, "train", metrics)
        progress.totals, progress.lap, progress.logged = {}, 0.0, step
        progress.flops = 0
        self._waited = 0.0
