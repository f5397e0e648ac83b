"""Scores of a task's outputs by the metrics of a config."""

import dataclasses
from collections.abc import Callable

from tasks.text_metrics.base import Texts
from tasks.text_metrics.registry import (
    DEFAULT_METRICS,
    DEFAULT_WITH_INTERVALS,
    ScoredTexts,
    check_metrics,
    metric_columns,
    score_texts,
)
from utils.languages import is_spaced


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores texts of a split against its references.

    Attributes:
      metrics: names of `cfg.eval.metrics`; (): the default ones.
      language: language code of the outputs; "" is unknown.
      normalize_reference: normalizes a reference to what a perfect model would output.
      lowercase: whether outputs are in lower case, so that columns must be too.
    """

    metrics: tuple[str, ...]
    language: str
    normalize_reference: Callable[[str], str]
    lowercase: bool

    def read_columns(self, corpus, split: str) -> dict[str, list[str]]:
        """Returns the columns of a split that the metrics read.

        Raises UserError where the corpus lacks one that a metric needs.
        """
        read = {name: corpus.column(split, name) for name in metric_columns(self.names)}
        columns = {name: texts for name, texts in read.items() if texts is not None}
        check_metrics(self.names, columns)
        if self.lowercase:
            return {name: [x.lower() for x in c] for name, c in columns.items()}
        return columns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, without the one that needs intervals."""
        return self.metrics or DEFAULT_METRICS

    def score(self, texts: Texts, *, intervals: bool = False) -> ScoredTexts:
        """Scores hypotheses beside normalized references, with 95% intervals if asked.

        Where metrics are chosen, the protocol names the language and the number of
        references.
        """
        names = self.names
        if not self.metrics and intervals and is_spaced(self.language):
            names = DEFAULT_WITH_INTERVALS
        scored = score_texts(names, texts, intervals=intervals)
        if self.metrics:
            scored.protocol["target_language"] = self.language
            scored.protocol["references"] = max(map(len, texts.references))
        return scored

    def texts(
        self,
        hypotheses: list[str],
        references: list[list[str]],
        columns: dict[str, list[str]],
    ) -> Texts:
        """Returns hypotheses beside normalized references, for `score`."""
        normalized = [list(map(self.normalize_reference, row)) for row in references]
        return Texts(hypotheses, normalized, self.language, columns)


def add_to_samples(samples: list[dict], texts: Texts, scored: ScoredTexts) -> None:
    """Adds what the scores of each example depend on, and what explains them.

    "further_references" are those after the first, "columns" the texts of columns by
    name.
    """
    for row, sample in enumerate(samples):
        if further := texts.references[row][1:]:
            sample["further_references"] = further
        if texts.columns:
            columns = texts.columns.items()
            sample["columns"] = {name: column[row] for name, column in columns}
        for name, column in scored.details.items():
            if column[row] is not None:
                sample[name] = column[row]
