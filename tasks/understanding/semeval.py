"""F1 of relations: the official score of SemEval-2010 task 8, and micro-F1.

Hendrickx et al. (2010): a prediction is correct with the right relation and direction.
Precision counts all predictions, recall all references of a relation, whatever their
direction. The score is the mean F1 of the relations that occur in the references,
except Other. It equals that of the official scorer.
"""

import re
from collections.abc import Sequence

import numpy as np

from tasks.bootstrap import Scores
from tasks.understanding.label_metrics import Counts, accuracy, score_confusions

NEGATIVE = ("Other", "unknown", "NA")  # names of the class without a relation
DIRECTION = re.compile(r"\((e1,e2|e2,e1)\)$")


def has_directions(names: Sequence[str]) -> bool:
    """Returns whether a name ends in a direction, such as `Cause-Effect(e1,e2)`."""
    return any(DIRECTION.search(name) for name in names)


def score_relations(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    official: bool,
    intervals: bool = False,
) -> Scores:
    """Returns the official F1 if asked, accuracy, and micro-F1, all percentages."""

    def score(counts, names):
        scores = {"official_f1": official_f1(counts, names)} if official else {}
        scores["accuracy"] = accuracy(counts)
        return scores | micro_scores(counts, names)

    return score_confusions(references, predictions, score, intervals=intervals)


def official_f1(counts: Counts, names: Sequence[str]) -> float:
    """Returns the official score of a confusion matrix; 0 without any relation."""
    undirected = np.asarray([DIRECTION.sub("", name) for name in names])
    relations = sorted({*undirected} - {*NEGATIVE})
    belongs = undirected[:, None] == np.asarray(relations, str)  # [classes, relations]
    actual, found = counts.sum(axis=1) @ belongs, counts.sum(axis=0) @ belongs
    f1 = 200 * (np.diag(counts) @ belongs) / np.maximum(1, found + actual)
    return float(f1[actual > 0].mean()) if actual.any() else 0.0


def micro_scores(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Returns micro-averaged F1, precision and recall without the negative class."""
    is_relation = ~np.isin(names, NEGATIVE)
    correct = np.diag(counts)[is_relation].sum()
    found = counts[:, is_relation].sum()
    actual = counts[is_relation].sum()
    return {
        "micro_f1": float(200 * correct / max(1, found + actual)),
        "micro_precision": float(100 * correct / max(1, found)),
        "micro_recall": float(100 * correct / max(1, actual)),
    }
