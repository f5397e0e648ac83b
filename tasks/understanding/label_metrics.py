"""Scores of predicted labels and grades, with tables by class.

All but the mean squared error are times 100, as GLUE (Wang et al. 2019) reports them.
Labels are names, so that one which never occurs in training is a class like any other.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from tasks.bootstrap import Scores, score_examples

Counts = Int[np.ndarray, "C C"]  # examples by class of reference (row) and prediction


def score_labels(
    references: Sequence[str], predictions: Sequence[str], *, intervals: bool = False
) -> Scores:
    """Returns accuracy, macro-F1 and Matthews correlation of labels."""

    def score(counts, names):
        del names
        return {
            "accuracy": accuracy(counts),
            "macro_f1": macro_f1(counts),
            "matthews": matthews(counts),
        }

    return score_confusions(references, predictions, score, intervals=intervals)


def score_confusions(
    references: Sequence[str],
    predictions: Sequence[str],
    score: Callable[[Counts, list[str]], dict[str, float]],
    *,
    intervals: bool = False,
) -> Scores:
    """Returns scores that are functions of the confusion matrix and its classes."""
    names, cells = _cells(references, predictions, ())

    def score_drawn(indices):
        return score(_count(cells[indices], len(names)), names)

    return score_examples(len(references), score_drawn, intervals=intervals)


def accuracy(counts: Counts) -> float:
    """Returns the percentage of correct predictions."""
    return float(100 * np.trace(counts) / counts.sum())


def macro_f1(counts: Counts) -> float:
    """Returns the mean F1 of the classes that references or predictions hold."""
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = sizes > 0
    return float(100 * np.mean(2 * np.diag(counts)[occurs] / sizes[occurs]))


def matthews(counts: Counts) -> float:
    """Returns Matthews correlation for any number of classes (Gorodkin 2004, R_K).

    It is 0 where all references or all predictions are of one class.
    """
    counts = counts.astype(float)
    total, correct = counts.sum(), np.trace(counts)
    predicted, actual = counts.sum(axis=0), counts.sum(axis=1)
    spread = (total**2 - predicted @ predicted) * (total**2 - actual @ actual)
    covariance = correct * total - predicted @ actual
    return float(100 * covariance / np.sqrt(spread)) if spread > 0 else 0.0


def class_table(
    references: Sequence[str], predictions: Sequence[str], names: Sequence[str] = ()
) -> list[dict[str, str | float]]:
    """Returns precision, recall, F1 and support of each class, one row a class.

    Args:
      names: classes of the first rows; others that occur follow, sorted.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second

    names = all_names(references, predictions, names)
    precision, recall, f1, support = precision_recall_fscore_support(
        references, predictions, labels=names, zero_division=0
    )
    return [
        {
            "class": name,
            "precision": float(100 * precision[row]),
            "recall": float(100 * recall[row]),
            "f1": float(100 * f1[row]),
            "support": int(support[row]),
        }
        for row, name in enumerate(names)
    ]


def confusion_matrix(
    references: Sequence[str], predictions: Sequence[str], names: Sequence[str] = ()
) -> tuple[list[str], Counts]:
    """Returns the classes, and counts by reference (rows) and prediction (columns).

    Args:
      names: classes of the first rows; others that occur follow, sorted.
    """
    names, cells = _cells(references, predictions, names)
    return names, _count(cells, len(names))


def all_names(
    references: Sequence[str], predictions: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Returns the given names, then the others that occur, sorted."""
    others = {*references, *predictions} - {*names}
    return [*names, *sorted(others)]


def _cells(references, predictions, names) -> tuple[list[str], np.ndarray]:
    """Returns all classes, and each example's index into the flat matrix of counts."""
    names = all_names(references, predictions, names)
    rows = {name: row for row, name in enumerate(names)}
    pairs = zip(references, predictions, strict=True)
    cells = [rows[actual] * len(names) + rows[found] for actual, found in pairs]
    return names, np.asarray(cells, int)


def _count(cells: np.ndarray, num_classes: int) -> Counts:
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def score_grades(
    references: Sequence[float],
    predictions: Sequence[float],
    *,
    intervals: bool = False,
) -> Scores:
    """Returns Pearson's and Spearman's correlation, and the mean squared error."""
    from scipy.stats import rankdata  # takes a second

    actual, found = (np.asarray(x, float) for x in (references, predictions))

    def score(indices):
        x, y = actual[indices], found[indices]
        return {
            "pearson": correlation(x, y),
            "spearman": correlation(rankdata(x), rankdata(y)),
            "mean_squared_error": float(np.mean((x - y) ** 2)),
        }

    return score_examples(len(actual), score, intervals=intervals)


def correlation(x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]) -> float:
    """Returns Pearson's correlation; 0 where one side is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(100 * (x @ y) / spread) if spread > 0 else 0.0
