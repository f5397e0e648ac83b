"""Score cards and baselines of text pairs, by the metrics of the config."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import base
from data.tokenizers.normalization import Normalizer
from data.tokenizers.symbols import ByteTokenizer
from tasks import translation
from tasks.bootstrap import BootstrapBlocks
from tasks.text_metrics.base import Texts
from tasks.text_metrics.registry import score_texts
from tasks.text_to_text import Task
from utils.errors import UserError

PAIRS = [("what is two", "it is 2"), ("what is three", "it is 3"), ("why", "because")]
OTHERS = [["2"], ["3"], []]
COLUMNS = {"answer": ["2", "3", ""], "entities": ["Two", "Three", ""]}
HYPOTHESES = ["2", "1 +", "because"]


class FixedOutputs:
    """Task whose model has one output for each example."""

    def _evaluate_batches(self, model, variables, batches, options, sources):
        return BootstrapBlocks(np.ones(len(sources)), np.ones(len(sources))), HYPOTHESES


class Fixed(FixedOutputs, Task):
    pass


class FixedTranslation(FixedOutputs, translation.Task):
    pass


def make_task(cls=Fixed, *, lowercase=False, **options):
    tokenizer = ByteTokenizer().with_normalizer(Normalizer("en", False, lowercase))
    sides = {"source": tokenizer, "target": tokenizer}
    return cls(sides, languages=("en", "en"), **options)


REFERENCES = [[target, *more] for (_, target), more in zip(PAIRS, OTHERS, strict=True)]
INPUTS = {"texts": PAIRS, "references": REFERENCES, "columns": COLUMNS}


def evaluate(task, **inputs):
    options = base.get_config("rnn")
    return task.evaluate(None, None, [], options, **(INPUTS | inputs), intervals=True)


def test_a_card_has_every_metric_of_the_config_and_what_it_depends_on():
    task = make_task(metrics=("rouge1", "answer_accuracy", "ter"))
    card = evaluate(task)
    scores = card["scores"]
    assert list(scores) == ["rouge1", "answer_accuracy", "ter", "loss"]
    assert scores["rouge1"]["value"] == pytest.approx(100 * 2 / 3)
    assert scores["answer_accuracy"]["value"] == pytest.approx(100 / 3)
    assert all({"value", "low", "high"} == entry.keys() for entry in scores.values())
    protocol = card["protocol"]
    assert protocol["target_language"] == "en"
    assert protocol["references"] == 2
    assert protocol["invalid_expressions"] == 2  # "1 +" and "because"
    assert protocol["rouge1_signature"].startswith("rouge-score")
    assert protocol["ter_signature"]


def test_samples_tell_references_columns_and_reasons():
    samples = evaluate(make_task(metrics=("answer_accuracy",)))["samples"]
    assert samples[0] == {
        **{"source": "what is two", "reference": "it is 2", "hypothesis": "2"},
        "further_references": ["2"],
        "columns": COLUMNS | {"answer": "2", "entities": "Two"},
    }
    assert "missing at its end" in samples[1]["invalid"]
    assert "further_references" not in samples[2]


def test_the_first_metric_selects_checkpoints_and_directions_follow_the_config():
    cfg = base.get_config("rnn")
    assert Task.default_metric(cfg) == "bleu"
    cfg.eval.metrics = ("ter", "rouge2")
    assert Task.directions(cfg) == {"ter": "min", "rouge2": "max", "loss": "min"}
    assert Task.default_metric(cfg) == "ter"
    assert translation.Task.default_metric(cfg) == "ter"
    assert translation.Task.default_metric({}) == "bleu"


def test_translation_has_its_own_scores_unless_metrics_are_set():
    card = evaluate(make_task(FixedTranslation), columns={}, references=None)
    names = ["bleu", "chrf", "bleu_moses_lowercase", "exact_match"]
    texts = Texts(HYPOTHESES, [[target] for _, target in PAIRS], "en")
    expected = score_texts(names, texts, intervals=True)
    assert list(card["scores"]) == [*names, "loss"]
    assert card["scores"].items() >= expected.scores.items()
    assert expected.protocol.items() <= card["protocol"].items()
    assert not {"target_language", "references"} & card["protocol"].keys()
    assert all(len(sample) == 3 for sample in card["samples"])
    card = evaluate(make_task(FixedTranslation, metrics=("exact_match",)))
    assert card["scores"]["exact_match"]["value"] == pytest.approx(200 / 3)


def dataset(**columns):
    train = [*PAIRS, ("what is it", "because"), ("what is two", "it is 2 or so")]

    def column(split, name):
        return columns.get(name)

    return SimpleNamespace(
        corpus=SimpleNamespace(splits={"train": len(train)}, column=column),
        texts=lambda split: train,
        unigram_loss=lambda split: 1.5,
    )


def test_baselines_have_every_metric_of_the_config():
    task = make_task(metrics=("exact_match", "token_f1"))
    found = task.baselines(dataset(), "test", **INPUTS)
    assert found.pop("unigram") == {"loss": 1.5}
    assert all(list(x) == ["exact_match", "token_f1"] for x in found.values())
    exact = {name: scores["exact_match"] for name, scores in found.items()}
    assert exact == {
        "copy": 0,
        "lead_10": 0,
        "most_frequent_target": pytest.approx(100 / 3),
        "nearest_neighbour": 100,
    }
    assert 0 < found["copy"]["token_f1"] < 100


def test_translation_has_two_baselines():
    found = make_task(FixedTranslation).baselines(dataset(), "test", **INPUTS)
    assert found.keys() == {"unigram", "copy", "nearest_neighbour"}
    assert found["copy"].keys() == {"bleu", "chrf", "exact_match"}


def test_the_lead_is_ten_words_or_ten_characters():
    task = make_task(metrics=("exact_match",))
    texts = [(" ".join("abcdefghijkl"), "x"), ("我是学生你是老师他是谁的", "x")]
    references = [[" ".join("abcdefghij")], ["我是学生你是老师他是"]]
    inputs = {"texts": texts, "references": references, "columns": {}}
    found = task.baselines(dataset(), "test", **inputs)
    assert found["lead_10"]["exact_match"] == 100


def test_columns_are_read_where_the_corpus_has_them():
    task = make_task(metrics=("answer_accuracy",))
    corpus = dataset(answer=["2", "3", "4"]).corpus
    assert task.scorer.read_columns(corpus, "test") == {"answer": ["2", "3", "4"]}
    lower = make_task(metrics=("entity_f1",), lowercase=True)
    corpus = dataset(entities=["Two"]).corpus
    assert lower.scorer.read_columns(corpus, "test") == {"entities": ["two"]}
    with pytest.raises(UserError, match="'entity_f1' needs the column 'entities'"):
        lower.scorer.read_columns(dataset(answer=["2"]).corpus, "test")
