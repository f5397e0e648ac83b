"""Spikes: steps whose loss is far above the losses before it.

A loss is a spike if it exceeds the median of the last WINDOW finite losses by
`threshold` robust standard deviations, 1.4826 times the median absolute deviation from
the median (Rousseeuw and Croux 1993, "Alternatives to the Median Absolute Deviation").
Both ignore a few outliers. A falling loss is below the median of its past, so that it
lowers the rate of false alarms.

False alarms per step at the default threshold of 10, of a million simulated losses
(tests/training/test_spikes.py): none of a normal distribution, 4e-5 of a Laplace
distribution, 8e-5 of Student's t with 5 degrees of freedom, and none of a falling trend
with normal noise; with 64 instead of 128 losses before, 6e-5 and 9e-5.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from training.metrics import WeightedMetrics

if TYPE_CHECKING:
    from training.loop import RunRecord

WINDOW = 128  # losses that a loss is compared with
MIN_LOSSES = 64  # without as many, no loss is a spike
CONSISTENCY = 1.4826  # standard deviation of a normal distribution over its MAD
# Smallest scale, as a fraction of the median: losses may all be alike.
MIN_RELATIVE_SCALE = 1e-3


def spike_limit(losses: ArrayLike, threshold: float) -> np.ndarray:
    """Returns the loss above which the next one is a spike; inf after few losses.

    Args:
      losses: finite losses of consecutive steps, along the last axis.
    """
    losses = np.asarray(losses, float)
    if losses.shape[-1] < MIN_LOSSES:
        return np.full(losses.shape[:-1], np.inf)
    median = np.median(losses, axis=-1, keepdims=True)
    deviation = CONSISTENCY * np.median(abs(losses - median), axis=-1)
    median = median[..., 0]
    return median + threshold * np.maximum(deviation, MIN_RELATIVE_SCALE * abs(median))


def count_in_a_row(skips: Sequence[dict]) -> int:
    """Returns how many of the last skips were at one step or at consecutive ones."""
    count = len(skips) > 0
    for earlier, later in zip(skips[-2::-1], skips[:0:-1], strict=True):
        if later["step"] - earlier["step"] > 1:
            break
        count += 1
    return int(count)


@dataclasses.dataclass(frozen=True)
class SpikeMonitor:
    """Finds spikes of a run's loss, and does what `on_spike` asks for.

    Attributes:
      action: "keep" marks a spike in the log and keeps its batch; "stop" also ends the
        run, and saves nothing after the spike; "skip" rewinds the run to its newest
        checkpoint and leaves the batch out.
      threshold: robust standard deviations above the median.
      max_skips: skips at one step, or at consecutive ones, after which a further spike
        ends the run.
      batch_number: returns the number of the batch of a step.
      report: tells of a spike and keeps its batch, given the step, the spike, and
        what follows: "keep", "skip" or "stop".
    """

    action: str
    threshold: float
    max_skips: int
    batch_number: Callable[[int], int]
    report: Callable[[int, dict, str], None]

    def check(self, record: "RunRecord", step: int, metrics: WeightedMetrics) -> None:
        """Compares the loss of a step with those before; may halt the run."""
        value, weight = map(float, metrics["loss"])
        if not weight:  # not finite
            return
        progress, loss = record.progress, value / weight
        limit = float(spike_limit(progress.recent_losses, self.threshold))
        spike = {"loss": loss, "limit": limit, "batch": self.batch_number(step)}
        if loss > limit and self.action == "skip":
            self._skip(record, step, spike)
            return
        if skipped := [skip for skip in progress.skips if skip["step"] == step]:
            newest = {**skipped[-1], "skips": len(progress.skips)}
            record.write(step, "spike", {k: newest[k] for k in newest if k != "step"})
        if loss > limit:
            record.write(step, "spike", spike)
            if not progress.is_spike:  # one batch of several spikes in a row
                self.report(step, spike, self.action)
            record.is_halted = self.action == "stop"
        progress.is_spike = loss > limit
        progress.recent_losses = [*progress.recent_losses, loss][-WINDOW:]

    def _skip(self, record, step, spike):
        """Leaves a batch out, or ends the run after too many."""
        skips = [*record.progress.skips, {"step": step, **spike}]
        record.is_halted = True
        record.is_rewound = count_in_a_row(skips) <= self.max_skips
        if record.is_rewound:
            record.progress.skips = skips
        self.report(step, spike, "skip" if record.is_rewound else "stop")
