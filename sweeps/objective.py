"""What a trial is judged by, read from the metrics.jsonl of its run directory."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from sweeps.search_space import Space
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that is logged again and again.

    Attributes:
      direction: "min" or "max", whichever is better.
    """

    split: str
    name: str
    direction: str

    @property
    def words(self) -> str:
        """As spaces name it."""
        return self.name if self.split == "validation" else f"{self.split}/{self.name}"

    @property
    def sign(self) -> int:
        """Times a value: larger is better."""
        return 1 if self.direction == "max" else -1

    def values(self, path: Path) -> dict[int, float | None]:
        """By step, of a metrics.jsonl that may be growing; None: not finite."""
        return {
            row["step"]: row[self.name] if _is_finite(row[self.name]) else None
            for row in rows_of(path)
            if row["split"] == self.split and self.name in row
        }

    def series(self, path: Path) -> dict[int, float]:
        """The finite ones."""
        return {k: v for k, v in self.values(path).items() if v is not None}

    def best(self, series: Mapping[int, float]) -> tuple[int, float]:
        """Step and value; the first of equals."""
        return max(series.items(), key=lambda item: (self.sign * item[1], -item[0]))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a sweep looks for.

    Attributes:
      metric: what trials are ranked by.
      value: whether the "best" or the "last" counts.
      pruning: what they are stopped early by.
    """

    metric: Metric
    value: str
    pruning: Metric

    @classmethod
    def of(cls, space: Space, best: str, better: Mapping[str, str]) -> "Objective":
        """That of a space.

        Args:
          best: the metric that chooses checkpoints.
          better: "min" or "max" of the metrics that the task knows.
        """
        metric = _metric(space.metric or best, space.direction, better)
        early = space.pruning and space.pruning.metric
        pruning = metric
        if early:
            pruning = _metric(early, space.pruning.direction, better)
        return cls(metric, space.value, pruning)

    def judge(self, path: Path) -> tuple[int, float] | None:
        """Step and value of a run's metrics.jsonl; None: none, or none at the last."""
        values = self.metric.values(path)
        if self.value == "last":
            last = max(values, default=None)
            return None if values.get(last) is None else (last, values[last])
        series = self.metric.series(path)
        return self.metric.best(series) if series else None


def _metric(words: str, direction: str | None, better: Mapping[str, str]) -> Metric:
    split, _, name = words.rpartition("/")
    direction = direction or better.get(name)
    if direction is None:
        raise UserError(
            f"metric {words!r}: the task knows {', '.join(better)}; of another one say "
            'whether direction="min" or "max" is better'
        )
    return Metric(split or "validation", name, direction)


def rows_of(path: Path) -> list[dict]:
    """Whole lines of a metrics.jsonl; none where there is no file.

    Damaged ones are left out, as they are where the run goes on.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf8", errors="replace").split("\n")[:-1]
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and {"step", "split"} <= row.keys() else None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
