"""Scores of entities against seqeval and against a small conlleval."""

import numpy as np
import pytest
import seqeval.metrics
from seqeval.scheme import IOB2

from tasks.understanding import span_metrics

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def drawn_tags(sentences=60, seed=0):
    """References and predictions, of which many are ill-formed IOB2."""
    draw = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(sentences):
        size = draw.integers(1, 9)
        tags = draw.choice(TAGS, size, p=(0.4, 0.2, 0.2, 0.1, 0.1))
        wrong = draw.random(size) < 0.2
        references.append(tags.tolist())
        predictions.append(np.where(wrong, draw.choice(TAGS, size), tags).tolist())
    return references, predictions


def conlleval_chunks(tags):
    """Chunks by the rules of conlleval.pl, word by word."""
    chunks, kind, start = [], None, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        begins = prefix == "B" or (prefix == "I" and name != kind)
        if kind is not None and (begins or prefix == "O"):
            chunks.append((kind, start, i - 1))
            kind = None
        if begins:
            kind, start = name, i
    return set(chunks)


def values(scores):
    return {name: score["value"] for name, score in scores.items()}


def test_scores_equal_those_of_seqeval_in_both_modes():
    pair = drawn_tags()
    scores = values(span_metrics.score_tags(*pair))
    functions = {
        "f1": seqeval.metrics.f1_score,
        "precision": seqeval.metrics.precision_score,
        "recall": seqeval.metrics.recall_score,
    }
    for name, function in functions.items():
        assert scores[name] == pytest.approx(100 * function(*pair))
        strict = function(*pair, mode="strict", scheme=IOB2)
        assert scores[f"strict_{name}"] == pytest.approx(100 * strict)
    accuracy = seqeval.metrics.accuracy_score(*pair)
    assert scores["token_accuracy"] == pytest.approx(100 * accuracy)
    assert scores["f1"] != scores["strict_f1"]


def test_entities_are_those_of_conlleval():
    for tags in [side for pair in zip(*drawn_tags(), strict=True) for side in pair]:
        found = span_metrics.find_entities(tags, "conlleval")
        assert found == conlleval_chunks(tags)


def test_an_inside_tag_alone_is_an_entity_for_conlleval_only():
    tags = ["I-PER", "O", "B-LOC", "I-PER"]
    assert span_metrics.find_entities(tags, "conlleval") == {
        *[("PER", 0, 0), ("LOC", 2, 2), ("PER", 3, 3)]
    }
    assert span_metrics.find_entities(tags, "strict") == {("LOC", 2, 2)}


def test_the_table_equals_the_report_of_seqeval():
    pair = drawn_tags()
    modes = {"conlleval": {}, "strict": {"mode": "strict", "scheme": IOB2}}
    for mode, options in modes.items():
        report = seqeval.metrics.classification_report(
            *pair, output_dict=True, **options
        )
        table = span_metrics.entity_table(*pair, mode)
        assert [row["class"] for row in table] == ["LOC", "PER"]
        for row in table:
            expected = report[row["class"]]
            assert row["support"] == expected["support"]
            assert row["f1"] == pytest.approx(100 * expected["f1-score"])


def test_a_sentence_is_right_if_all_tags_and_the_intent_are():
    references = [["B-PER"], ["O", "O"], ["O"]]
    predictions = [["B-PER"], ["O", "B-PER"], ["O"]]
    scores = values(span_metrics.score_tags(references, predictions))
    assert scores["sentence_accuracy"] == pytest.approx(200 / 3)
    assert scores["token_accuracy"] == 75
    assert "intent_accuracy" not in scores
    intents = ["a", "b", "c"], ["a", "b", "a"]
    scores = values(span_metrics.score_tags(references, predictions, intents))
    assert scores["sentence_accuracy"] == pytest.approx(100 / 3)
    assert scores["intent_accuracy"] == pytest.approx(200 / 3)


def test_no_entities_at_all_give_zero_without_a_warning(recwarn):
    scores = span_metrics.score_tags([["O"]] * 3, [["O"]] * 3, intervals=True)
    assert scores["f1"] == {"value": 0, "low": 0, "high": 0}
    assert scores["token_accuracy"] == {"value": 100, "low": 100, "high": 100}
    assert not recwarn.list


def test_intervals_resample_sentences():
    pair = drawn_tags(200)
    scores = span_metrics.score_tags(*pair, intervals=True)
    for score in scores.values():
        assert score["low"] < score["value"] < score["high"]
    share = scores["sentence_accuracy"]["value"] / 100
    width = 100 * 2 * 1.96 * np.sqrt(share * (1 - share) / 200)
    found = scores["sentence_accuracy"]["high"] - scores["sentence_accuracy"]["low"]
    assert found == pytest.approx(width, rel=0.1)


def test_the_protocol_names_both_modes():
    protocol = span_metrics.span_protocol()
    assert "conlleval" in protocol["f1"]
    assert "strict" in protocol["strict_f1"]
