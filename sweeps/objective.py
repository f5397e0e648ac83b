"""Objective of a sweep, read from the log (metrics.jsonl) of each trial."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from sweeps.search_space import Space
from training.metric_writers import parse_metrics_line
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Metric:
    """Metric that a run logs repeatedly.

    Attributes:
      direction: "min" or "max", whichever is better.
    """

    split: str
    name: str
    direction: str

    @property
    def spec(self) -> str:
        """The metric as search spaces name it: "NAME", or "SPLIT/NAME"."""
        return self.name if self.split == "validation" else f"{self.split}/{self.name}"

    @property
    def sign(self) -> int:
        """Factor of a value after which larger is better."""
        return 1 if self.direction == "max" else -1

    def values(self, rows: Sequence[dict]) -> dict[int, float | None]:
        """Returns step -> value of a log; None for a non-finite value."""
        return {
            row["step"]: row[self.name] if _is_finite(row[self.name]) else None
            for row in rows
            if row["split"] == self.split and self.name in row
        }

    def finite_values(self, rows: Sequence[dict]) -> dict[int, float]:
        """Returns step -> value of a log, without non-finite values."""
        return {k: v for k, v in self.values(rows).items() if v is not None}


@dataclasses.dataclass(frozen=True)
class Objective:
    """Objective of a sweep, and the metric that prunes its trials.

    Attributes:
      metric: metric by which trials are ranked.
      value: "best" or "last": which value counts for a trial.
      pruning_metric: metric by which trials are stopped early.
    """

    metric: Metric
    value: str
    pruning_metric: Metric

    @classmethod
    def from_space(
        cls, space: Space, default: str, directions: Mapping[str, str]
    ) -> "Objective":
        """Returns the objective of a search space.

        Args:
          default: metric that selects checkpoints.
          directions: "min" or "max" for each metric that the task knows.
        """
        metric = _make_metric(space.metric or default, space.direction, directions)
        pruning = space.pruning
        if not (pruning and pruning.metric):
            return cls(metric, space.value, metric)
        pruning_metric = _make_metric(pruning.metric, pruning.direction, directions)
        return cls(metric, space.value, pruning_metric)

    def final_value(self, rows: Sequence[dict]) -> tuple[int, float] | None:
        """Returns the step and value that count for a run's log.

        None if there is none, or if the last one counts and is not finite.
        """
        values, sign = self.metric.values(rows), self.metric.sign
        if self.value == "last":
            step = max(values, default=None)
        else:  # the best, the first of equals
            finite = [step for step, value in values.items() if value is not None]
            step = max(finite, key=lambda k: (sign * values[k], -k), default=None)
        return None if values.get(step) is None else (step, values[step])


def _make_metric(
    spec: str, direction: str | None, directions: Mapping[str, str]
) -> Metric:
    split, _, name = spec.rpartition("/")
    direction = direction or directions.get(name)
    if direction is None:
        raise UserError(
            f"Unknown metric {spec!r}; choose one of {', '.join(directions)}, or set "
            'direction="min" or "max" in the space'
        )
    return Metric(split or "validation", name, direction)


def parse_metrics(content: bytes | None) -> list[dict]:
    """Returns the complete lines of a metrics.jsonl; None: there is no file yet.

    Damaged lines are left out, as they are when a run resumes.
    """
    lines = (content or b"").decode(errors="replace").splitlines(keepends=True)
    return [row for row in map(parse_metrics_line, lines) if row is not None]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
