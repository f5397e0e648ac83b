"""Metrics of dialogue responses: F1 of entities, and accuracy of whole dialogues."""

import numpy as np

from tasks.text_metrics.base import RowStatistics, Texts, percentage
from tasks.text_metrics.matching import exact_match


def entity_f1(texts: Texts) -> RowStatistics:
    """Computes micro F1 of the entities in responses.

    As Madotto et al. (2018, "Mem2Seq", section 3.2) count: the entities of a reference
    are those of the column "entities", separated by spaces; the entities of a
    hypothesis are its words among all entities of the split. Only responses with
    entities in their reference count.
    """
    actual = [set(row.split()) for row in texts.columns["entities"]]
    known = set().union(*actual)
    rows = []
    for hypothesis, entities in zip(texts.hypotheses, actual, strict=True):
        found = known & set(hypothesis.split()) if entities else set()
        rows.append((2 * len(found & entities), len(found) + len(entities)))
    return RowStatistics(np.asarray(rows, float), percentage)


def dialogue_accuracy(texts: Texts) -> RowStatistics:
    """Computes the percentage of dialogues with all responses right.

    The column "dialog" names the dialogue of each response. Its rows are dialogues.
    """
    right: dict[str, bool] = {}
    correct = exact_match(texts).rows[:, 0]
    for name, value in zip(texts.columns["dialog"], correct, strict=True):
        right[name] = right.get(name, True) and bool(value)
    values = np.asarray(list(right.values()), float)
    rows = np.stack([values, np.ones(len(values))], axis=1)
    return RowStatistics(rows, percentage, {"dialogues": len(right)})
