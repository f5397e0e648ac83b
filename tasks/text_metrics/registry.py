"""The metrics of `cfg.eval.metrics` by name, and scores of texts by several of them."""

import dataclasses
import importlib
from collections.abc import Collection, Iterable
from typing import Literal

from tasks.text_metrics.base import Details, Protocol, Statistics, Texts
from utils.errors import UserError
from utils.languages import primary_language


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric: a function from `Texts` to `Statistics`, imported when it is used.

    Attributes:
      module: module of tasks/text_metrics/ with a function of the metric's name.
      direction: whether the best score is the largest or the smallest.
      columns: columns of the corpus that the metric needs.
      optional: columns that it reads where the corpus has them.
    """

    module: str
    direction: Literal["max", "min"] = "max"
    columns: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


METRICS = {
    "bleu": Metric("ngrams"),
    "bleu_moses_lowercase": Metric("ngrams"),
    "bleu_compound_split": Metric("ngrams"),
    "chrf": Metric("ngrams"),
    "ter": Metric("ngrams", direction="min"),
    "rouge1": Metric("rouge"),
    "rouge2": Metric("rouge"),
    "rougeL": Metric("rouge"),
    "rougeLsum": Metric("rouge"),
    "exact_match": Metric("matching"),
    "token_f1": Metric("matching"),
    "answer_accuracy": Metric("answers", columns=("answer",), optional=("numbers",)),
    "entity_f1": Metric("dialogue", columns=("entities",)),
    "dialogue_accuracy": Metric("dialogue", columns=("dialog",)),
}
DEFAULT_METRICS = ("bleu", "chrf", "exact_match")
# Of evaluations with intervals: older papers report the third.
DEFAULT_WITH_INTERVALS = ("bleu", "chrf", "bleu_moses_lowercase", "exact_match")


@dataclasses.dataclass(frozen=True)
class ScoredTexts:
    """Scores by metric, what they depend on, and values of single examples."""

    scores: dict[str, dict[str, float]]
    protocol: Protocol
    details: Details


def score_texts(
    names: Iterable[str], texts: Texts, *, intervals: bool = False
) -> ScoredTexts:
    """Scores texts by the named metrics.

    Args:
      intervals: adds a 95% bootstrap interval, "low" to "high", to each score.

    Raises:
      UserError: a name is unknown, or a metric needs a column that is not there.
    """
    scored = ScoredTexts({}, {}, {})
    for name in names:
        statistics = compute_statistics(name, texts)
        scored.scores[name], protocol = statistics.evaluate(intervals=intervals)
        scored.protocol.update(protocol)
        scored.details.update(statistics.details)
    if primary_language(texts.language) is None:
        scored.protocol["unknown_language"] = texts.language
    return scored


def compute_statistics(name: str, texts: Texts) -> Statistics:
    """Returns a metric's statistics of examples; see `score_texts`."""
    check_metrics([name], texts.columns)
    module = importlib.import_module(f"tasks.text_metrics.{METRICS[name].module}")
    return getattr(module, name)(texts)


def check_metrics(names: Iterable[str], columns: Collection[str] | None = None) -> None:
    """Raises UserError for an unknown name, or a metric without its columns.

    Args:
      columns: the columns of the corpus; None: they are not known yet.
    """
    for name in names:
        if name not in METRICS:
            raise UserError(
                f"Unknown metric {name!r} in eval.metrics; choose some of "
                f"{', '.join(METRICS)}"
            )
        for column in METRICS[name].columns if columns is not None else ():
            if column not in columns:
                raise UserError(
                    f"eval.metrics={name!r} needs the column {column!r}, which the "
                    "corpus does not have"
                )


def metric_columns(names: Iterable[str]) -> list[str]:
    """Returns the columns that the named metrics need or can use, each once."""
    metrics = [METRICS[name] for name in names]
    return list(dict.fromkeys(c for m in metrics for c in (*m.columns, *m.optional)))


def metric_names(cfg) -> tuple[str, ...]:
    """Returns the names of `cfg.eval.metrics`, or of the default metrics."""
    # A run of an earlier version has no such key.
    return tuple(cfg.get("eval", {}).get("metrics") or DEFAULT_METRICS)


def metric_directions(cfg) -> dict[str, str]:
    """Returns "min" or "max" for each metric of a config."""
    return {name: METRICS[name].direction for name in metric_names(cfg)}
