"""Scores of relations, of examples computed by hand after the official definition."""

import pytest

from tasks.understanding import label_metrics, semeval

# A: correct once, once with the wrong direction, once missed. B: only missed. C: only
# predicted, so that it has no F1. Other: correct once, predicted twice more.
REFERENCES = ["A(e1,e2)", "A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "Other", "Other"]
PREDICTIONS = ["A(e1,e2)", "A(e2,e1)", "Other", "Other", "Other", "C(e1,e2)"]


def official(references, predictions):
    names, counts = label_metrics.confusion_matrix(references, predictions)
    return semeval.official_f1(counts, names)


def values(scores):
    return {name: score["value"] for name, score in scores.items()}


def test_the_official_score_is_the_mean_f1_of_relations_with_references():
    # A: precision 1/2, recall 1/3, F1 2/5. B: 0.
    assert official(REFERENCES, PREDICTIONS) == pytest.approx(100 * (2 / 5 + 0) / 2)


def test_directions_share_one_relation():
    # Precision 2/3, recall 2/4.
    references = ["A(e2,e1)", "A(e1,e2)", "A(e2,e1)", "A(e1,e2)"]
    predictions = ["A(e2,e1)", "A(e1,e2)", "A(e1,e2)", "Other"]
    assert official(references, predictions) == pytest.approx(100 * 4 / 7)


def test_right_predictions_score_100_and_the_negative_class_alone_0():
    assert official(REFERENCES, REFERENCES) == 100
    assert official(["Other"] * 2, ["Other", "A(e1,e2)"]) == 0
    assert official(["Other"], ["Other"]) == 0


def test_micro_f1_leaves_out_the_negative_class():
    references = ["unknown", "owns", "owns", "unknown", "sells"]
    predictions = ["owns", "owns", "unknown", "unknown", "sells"]
    scores = values(semeval.score_relations(references, predictions, official=False))
    assert scores == pytest.approx(
        {
            "accuracy": 60,
            "micro_f1": 100 * 2 / 3,
            "micro_precision": 100 * 2 / 3,
            "micro_recall": 100 * 2 / 3,
        }
    )
    nothing = ["unknown"] * 3
    scores = values(semeval.score_relations(nothing, nothing, official=False))
    assert scores["micro_f1"] == 0


def test_the_official_score_comes_first_where_it_is_asked_for():
    scores = semeval.score_relations(
        REFERENCES * 9, PREDICTIONS * 9, official=True, intervals=True
    )
    assert list(scores)[:2] == ["official_f1", "accuracy"]
    score = scores["official_f1"]
    assert score["value"] == pytest.approx(20)
    assert score["low"] < 20 < score["high"]


def test_directions_are_seen_in_the_names():
    assert semeval.has_directions(["Other", "A(e2,e1)"])
    assert not semeval.has_directions(["Other", "A", "f(e1)"])
