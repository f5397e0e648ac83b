"""The task of relation extraction: scores by the labels, and lines of input."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data.tokenizers.base import SPECIAL
from data.tokenizers.symbols import CharTokenizer
from data.understanding.labels import Labels
from data.understanding.markers import MARKERS
from data.understanding.relations import MarkedTexts, RelationBatches, encode_marked
from models.registry import get_model_class
from tasks.understanding.relation_extraction import Task
from utils.errors import UserError

DIRECTED = ("A(e1,e2)", "A(e2,e1)", "Other")
TOKENIZER = CharTokenizer([*SPECIAL, *"abc "]).with_tags(MARKERS)
TEXTS = ["a<e1>b</e1><e2>c</e2>", "<e2>c</e2>ab<e1>bb</e1>a", "<e1>a</e1><e2>b</e2>"]
REFERENCES = ["A(e1,e2)", "A(e2,e1)", "Other"]


def config(**changes):
    cfg = base.get_config("transformer")
    cfg.task, cfg.data.max_length = "relation_extraction", 16
    cfg.data.text_column, cfg.data.label_column = "sentence", "label"
    cfg.model.update(layers=1, width=16, heads=2, feed_forward=16, dropout=0.0)
    cfg.update_from_flattened_dict(changes)
    return cfg


def make_task(names=DIRECTED):
    labels = Labels(names, [1] * len(names))
    return Task.from_config(config(), {"text": TOKENIZER, "label": labels})


@functools.cache
def case():
    """A task, its model, parameters, and batches of three texts."""
    task = make_task()
    schema = get_model_class("transformer", "Config")
    model = task.make_model(schema(**config().model))
    shapes = Task.example_batch(config())
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    boxed = jax.jit(lambda rng: task.init(model, rng, batch))(jax.random.key(0))
    variables = jax.tree.map(
        lambda x: x.value, boxed, is_leaf=lambda x: hasattr(x, "value")
    )
    texts = MarkedTexts(TEXTS, functools.partial(encode_marked, TOKENIZER), 16)
    numbers = task.labels.numbers(REFERENCES)
    return task, model, variables, RelationBatches(texts, numbers, 4, 1)


def test_an_evaluation_has_the_official_score_of_labels_with_directions():
    task, model, variables, batches = case()
    card = task.evaluate(
        model,
        variables,
        batches,
        config(),
        texts=[(text,) for text in TEXTS],
        references=REFERENCES,
        intervals=True,
    )
    assert not task.missing_metrics()
    names = {"official_f1", "accuracy", "micro_f1", "micro_precision", "micro_recall"}
    assert card["scores"].keys() == {*names, "loss"} == Task.metric_directions.keys()
    assert "SemEval" in card["protocol"]["official_f1"]
    assert card["protocol"]["micro_f1"] == "without Other"
    assert [sample["reference"] for sample in card["samples"]] == REFERENCES
    found = [sample["hypothesis"] for sample in card["samples"]]
    lines = task.generate(model, variables, [*TEXTS, ""], config())
    *outputs, blank = lines
    assert [best for (best, _), *_ in outputs] == found
    assert blank == []
    for ranked in outputs:
        probabilities = [p for _, p in ranked]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_labels_without_directions_are_scored_by_micro_f1():
    task = make_task(("owns", "sells", "unknown"))
    assert task.missing_metrics() == {"official_f1"}
    pair = ["owns", "unknown"], ["owns", "sells"]
    scores = task.score(*pair, intervals=False)
    assert "official_f1" not in scores
    assert scores["micro_f1"]["value"] == pytest.approx(200 / 3)
    assert task.protocol(config(), pair[0])["micro_f1"] == "without unknown"
    plain = make_task(("owns", "sells"))
    assert "no" not in plain.protocol(config(), ["owns"])["micro_f1"].split()
    assert plain.protocol(config(), ["owns"])["micro_f1"] == "without a negative class"


def test_the_positions_of_entities_reach_the_loss():
    task, model, variables, batches = case()
    batch = jax.tree.map(jnp.asarray, batches[0])
    loss = jax.jit(lambda x: task.loss(model, variables, (), x, None, False))
    first, _ = loss(batch)
    moved = batch | {"entities": batch["entities"][:, ::-1]}
    second, _ = loss(moved)
    assert first["loss"][1] == 3
    assert abs(float(first["loss"][0] - second["loss"][0])) > 1e-4


def test_lost_entities_are_in_the_protocol():
    task, *_, batches = case()
    here = types.SimpleNamespace(examples=lambda split: batches.texts)
    assert task.truncated(here, "test", config()) == {}
    cut = MarkedTexts(TEXTS, functools.partial(encode_marked, TOKENIZER), 6)
    here = types.SimpleNamespace(examples=lambda split: cut)
    found = task.truncated(here, "test", config(**{"data.max_length": 6}))
    assert found["entities"] == cut.entities_lost == np.sum(cut.entities == 0) > 0
    assert found["max_length"] == 6


def test_a_line_without_markers_is_refused():
    task, model, variables, _ = case()
    with pytest.raises(UserError, match="line 2 of the input: <e2> occurs 0 times"):
        list(task.generate(model, variables, ["", "<e1>a</e1>"], config()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.regression": True}, "head.regression=True must be False"),
        ({"data.pair_column": "b"}, "data.pair_column=b must be None"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Task.check_config(config(**changes))
