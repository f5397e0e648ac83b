"""What a run has behind it, beside its parameters: kept in every checkpoint."""

import dataclasses
import math


@dataclasses.dataclass
class TrainProgress:
    """Plain numbers, the same on all hosts, which JSON holds exactly.

    Attributes:
      totals: (sum, weight) of each metric since the last line of the log.
      last_logged, last_validated: steps of the newest line and validation.
      seconds: of training, without validation and saving.
      window_seconds: those since the last line of the log.
      window_flops: FLOPs of the steps since then (training/profiling/flops.py).
      nonfinite_steps: number of steps whose loss or gradient was not finite.
      consecutive_nonfinite: those of them since the last finite step.
      best_score: the best validation score so far; larger is better.
      evals_since_best: validations since it.
    """

    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    last_logged: int = 0
    last_validated: int = 0
    seconds: float = 0.0
    window_seconds: float = 0.0
    window_flops: int = 0
    nonfinite_steps: int = 0
    consecutive_nonfinite: list[int] = dataclasses.field(default_factory=list)
    best_score: float | None = None
    evals_since_best: int = 0

    @classmethod
    def from_json(cls, document: dict) -> "TrainProgress":
        """What `to_json` gave. Raises TypeError for that of another version."""
        return cls(**document)

    def to_json(self) -> dict:
        """For a checkpoint; a copy."""
        return dataclasses.asdict(self)

    def reset_nonfinite(self, most: int) -> None:
        """What stopped a run, `most` skipped steps, is given another chance."""
        if len(self.consecutive_nonfinite) >= most:
            self.consecutive_nonfinite = []

    def record_validation(self, step: int, selection_score: float) -> None:
        """After a validation; larger is better, what is not finite never."""
        self.last_validated = step
        better = self.best_score is None or selection_score > self.best_score
        if math.isfinite(selection_score) and better:
            self.best_score, self.evals_since_best = selection_score, 0
        else:
            self.evals_since_best += 1
