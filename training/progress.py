"""What a run has behind it, beside its parameters: kept in every checkpoint."""

import dataclasses
import math


@dataclasses.dataclass
class Progress:
    """Plain numbers, the same on all hosts, which JSON holds exactly.

    Attributes:
      totals: (sum, weight) of each metric since the last line of the log.
      logged, validated: the last step that was.
      seconds: of training, not of validation and saving.
      lap: those since the last line of the log.
      flops: of the steps since then; see training/profiling/flops.py.
      skipped: steps whose loss or gradient was not finite.
      in_a_row: the numbers of those since the last that was.
      best: the best score of a validation so far, larger being better.
      stale: validations since it.
    """

    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    logged: int = 0
    validated: int = 0
    seconds: float = 0.0
    lap: float = 0.0
    flops: int = 0
    skipped: int = 0
    in_a_row: list[int] = dataclasses.field(default_factory=list)
    best: float | None = None
    stale: int = 0

    @classmethod
    def of_json(cls, document: dict) -> "Progress":
        """What `to_json` gave. Raises TypeError for that of another version."""
        return cls(**document)

    def to_json(self) -> dict:
        """For a checkpoint; a copy."""
        return dataclasses.asdict(self)

    def begin_again(self, most: int) -> None:
        """What stopped a run, `most` skipped steps, is given another chance."""
        if len(self.in_a_row) >= most:
            self.in_a_row = []

    def judge(self, step: int, goodness: float) -> None:
        """After a validation; larger is better, what is not finite never."""
        self.validated = step
        better = self.best is None or goodness > self.best
        if math.isfinite(goodness) and better:
            self.best, self.stale = goodness, 0
        else:
            self.stale += 1
