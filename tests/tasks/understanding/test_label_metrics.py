"""Scores of labels and grades against scikit-learn and SciPy."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tasks.understanding import label_metrics

NAMES = ("no", "yes", "maybe", "never")


def drawn_labels(size=400, seed=0):
    draw = np.random.default_rng(seed)
    references = draw.choice(NAMES[:3], size, p=(0.5, 0.3, 0.2))
    wrong = draw.choice(NAMES[:3], size)
    predictions = np.where(draw.random(size) < 0.6, references, wrong)
    return references.tolist(), predictions.tolist()


def values(scores):
    return {name: score["value"] for name, score in scores.items()}


def test_scores_of_labels_equal_those_of_scikit_learn():
    pair = drawn_labels()
    expected = {
        "accuracy": 100 * sklearn.metrics.accuracy_score(*pair),
        "macro_f1": 100 * sklearn.metrics.f1_score(*pair, average="macro"),
        "matthews": 100 * sklearn.metrics.matthews_corrcoef(*pair),
    }
    assert values(label_metrics.score_labels(*pair)) == pytest.approx(expected)


def test_a_class_that_is_only_predicted_or_only_referred_to_has_an_f1_of_zero():
    pair = ["a", "a", "b", "unseen"], ["a", "c", "b", "b"]
    expected = 100 * sklearn.metrics.f1_score(*pair, average="macro")
    assert values(label_metrics.score_labels(*pair))["macro_f1"] == pytest.approx(
        expected
    )


def test_predictions_of_one_class_have_no_correlation():
    scores = values(label_metrics.score_labels(["a", "a", "b"], ["a", "a", "a"]))
    assert scores["matthews"] == 0
    scores = values(label_metrics.score_grades([1, 2, 3], [2, 2, 2]))
    assert scores["pearson"] == scores["spearman"] == 0
    assert scores["mean_squared_error"] == pytest.approx(2 / 3)


def test_constant_grades_have_no_correlation_whatever_the_rounding():
    x, y = np.full(7, 0.1), np.full(7, 0.7)
    assert (x - x.mean()).any()  # so that a test of the deviations alone would fail
    assert label_metrics.correlation(x, y) == 0
    assert label_metrics.correlation(x, np.arange(7.0)) == 0


def test_scores_of_grades_equal_those_of_scipy():
    draw = np.random.default_rng(1)
    x = draw.integers(1, 6, 300).astype(float)  # with ties
    y = x + draw.normal(0, 1, 300)
    expected = {
        "pearson": 100 * scipy.stats.pearsonr(x, y).statistic,
        "spearman": 100 * scipy.stats.spearmanr(x, y).statistic,
        "mean_squared_error": sklearn.metrics.mean_squared_error(x, y),
    }
    assert values(label_metrics.score_grades(x, y)) == pytest.approx(expected)


def test_intervals_hold_the_value_and_agree_with_the_standard_error():
    pair = drawn_labels(900)
    scores = label_metrics.score_labels(*pair, intervals=True)
    for score in scores.values():
        assert score["low"] < score["value"] < score["high"]
    share = scores["accuracy"]["value"] / 100
    width = 100 * 2 * 1.96 * np.sqrt(share * (1 - share) / 900)
    found = scores["accuracy"]["high"] - scores["accuracy"]["low"]
    assert found == pytest.approx(width, rel=0.1)
    assert scores == label_metrics.score_labels(*pair, intervals=True)


def test_the_interval_of_pearson_agrees_with_that_of_fisher():
    draw = np.random.default_rng(2)
    x = draw.normal(size=600)
    y = x + draw.normal(size=600)
    found = label_metrics.score_grades(x, y, intervals=True)["pearson"]
    expected = scipy.stats.pearsonr(x, y).confidence_interval()
    assert found["low"] == pytest.approx(100 * expected.low, abs=1.0)
    assert found["high"] == pytest.approx(100 * expected.high, abs=1.0)


def test_the_table_has_a_row_for_each_class_in_the_order_of_the_names():
    pair = drawn_labels()
    table = label_metrics.class_table(*pair, names=("yes", "never"))
    assert [row["class"] for row in table] == ["yes", "never", "maybe", "no"]
    report = sklearn.metrics.classification_report(*pair, output_dict=True)
    for row in table:
        expected = report.get(row["class"], {"precision": 0, "support": 0})
        assert row["precision"] == pytest.approx(100 * expected["precision"])
        assert row["support"] == expected["support"]


def test_the_confusion_matrix_has_references_as_rows():
    names, counts = label_metrics.confusion_matrix(
        ["a", "a", "b", "c"], ["b", "a", "b", "d"], names=("b", "a")
    )
    assert names == ["b", "a", "c", "d"]
    assert counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0] * 4]
