"""Training metrics as (sum, weight) pairs, and the progress of a run.

Merging is addition and only the end divides, so a mean is exact however its steps
were cut. `TrainProgress` holds the sums and is saved in every checkpoint.
"""

import dataclasses
import math

import jax

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
    nonfinite_steps: int = 0  # steps without a finite loss, gradient and update
    # Numbers of those steps since the last finite one.
    consecutive_nonfinite: list[int] = dataclasses.field(default_factory=list)
    best_score: float | None = None  # of all validations; larger is better
    evals_since_best: int = 0  # validations since then
    # With `on_spike` (training/spikes.py): the newest finite losses, and whether the
    # last of them was a spike.
    recent_losses: list[float] = dataclasses.field(default_factory=list)
    is_spike: bool = False
    # Batches that were left out: their number, and step, loss and limit of the spike.
    skips: list[dict] = dataclasses.field(default_factory=list)

    @property
    def skipped_batches(self) -> list[int]:
        """Numbers of the batches that were left out."""
        return [skip["batch"] for skip in self.skips]

    def reset_nonfinite(self, limit: int, last_step: int) -> None:
        """Lets a run that `limit` non-finite steps ended try again before its end."""
        steps = self.consecutive_nonfinite
        if len(steps) >= limit and steps[-1] < last_step:
            self.consecutive_nonfinite = []

    def record_validation(self, step: int, selection_score: float) -> None:
        """Counts validations without a better score; nan is never better."""
        self.last_validated = step
        better = self.best_score is None or selection_score > self.best_score
        if math.isfinite(selection_score) and better:
            self.best_score, self.evals_since_best = selection_score, 0
        else:
            self.evals_since_best += 1
