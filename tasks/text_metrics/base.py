"""Inputs and results of text metrics: texts, and statistics of single examples."""

import abc
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from tasks.bootstrap import score_examples
from utils.errors import UserError

Sums = Float[np.ndarray, "K"]
Protocol = dict[str, str | int]
Details = dict[str, list[str | None]]  # a column of the samples; None: no entry there


@dataclasses.dataclass(frozen=True)
class Texts:
    """Hypotheses of a split, and all that metrics compare them with.

    Attributes:
      hypotheses: one output an example.
      references: one or more references an example.
      language: language code of the references; "" is unknown.
      columns: further texts of each example, by the name of their column.
    """

    hypotheses: list[str]
    references: list[list[str]]
    language: str = ""
    columns: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        count = len(self.hypotheses)
        sides = {"lists of references": self.references}
        sides |= {f"rows of the column {name!r}": x for name, x in self.columns.items()}
        for name, side in sides.items():
            if len(side) != count:
                raise UserError(
                    f"{count} hypotheses for {len(side)} {name}; there must be one of "
                    "each an example"
                )
        if not count:
            raise UserError("there are no texts to score")
        for number, references in enumerate(self.references, start=1):
            if not references:
                raise UserError(f"example {number} has no reference")

    def with_hypotheses(self, hypotheses: list[str]) -> "Texts":
        """Returns the references of these examples beside other hypotheses."""
        return dataclasses.replace(self, hypotheses=hypotheses)


class Statistics(abc.ABC):
    """Statistics of examples, or of groups of them, whose sums give a score.

    Attributes:
      rows: the statistics of each example or group.
      details: values of single examples that explain the score.
    """

    rows: Float[np.ndarray, "N K"]
    details: Details

    @abc.abstractmethod
    def score(self, sums: Sums) -> float:
        """Returns the score, given the sums of rows."""

    @abc.abstractmethod
    def evaluate(self, *, intervals: bool) -> tuple[dict[str, float], Protocol]:
        """Returns the "value" of a score, and what it depends on.

        Args:
          intervals: adds the ends "low" and "high" of a 95% bootstrap interval.
        """


@dataclasses.dataclass(frozen=True)
class RowStatistics(Statistics):
    """Statistics that are computed already; intervals are percentiles of samples."""

    rows: Float[np.ndarray, "N K"]
    function: Callable[[Sums], float]
    protocol: Protocol = dataclasses.field(default_factory=dict)
    details: Details = dataclasses.field(default_factory=dict)

    def score(self, sums):
        return self.function(sums)

    def evaluate(self, *, intervals):
        def score(indices):
            drawn = np.bincount(indices, minlength=len(self.rows))
            return {"": self.function(drawn @ self.rows)}

        scores = score_examples(len(self.rows), score, intervals=intervals)
        return scores[""], dict(self.protocol)


def percentage(sums: Sums) -> float:
    """Returns 100 times the quotient of two sums, 0 for nothing over nothing."""
    return float(100 * sums[0] / sums[1]) if sums[1] else 0.0


def mean_statistics(
    values, protocol: Protocol | None = None, details: Details | None = None
) -> RowStatistics:
    """Returns statistics of a percentage, given the fraction of each example."""
    values = np.asarray(values, float)
    rows = np.stack([values, np.ones(len(values))], axis=1)
    return RowStatistics(rows, percentage, protocol or {}, details or {})
