"""The task of tagging: losses, predictions, score cards and lines of input."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from data.tokenizers.base import SPECIAL
from data.tokenizers.symbols import CharTokenizer
from data.understanding.labels import Labels
from data.understanding.tagged import TaggedBatches, TaggedTexts
from helpers.architectures import random_parameters
from models.heads.tagger import Tagger
from models.registry import get_model_class
from tasks.understanding.losses import cross_entropy
from tasks.understanding.span_metrics import forbidden_transitions
from tasks.understanding.tagging import Task
from utils.errors import UserError

SENTENCES = [
    (["to", "new", "york"], ["O", "B-C", "I-C"]),
    (["york"], ["B-C"]),
    (["to", "to", "york", "new"], ["O", "O", "B-C", "O"]),
]
INTENTS = ["f", "g", "f"]
TAGS = Labels(["B-C", "I-C", "O"], [3, 1, 4])
TOKENIZER = CharTokenizer([*SPECIAL, *"ewoyrknt"])


def config(**changes):
    cfg = base.get_config("transformer")
    cfg.task, cfg.data.max_length = "tagging", 16
    cfg.data.text_column, cfg.data.tag_column = "tokens", "tags"
    cfg.model.update(
        layers=1, width=16, heads=2, feed_forward=16, dropout=0.0, attention_dropout=0.0
    )
    cfg.update_from_flattened_dict(changes)
    return cfg


class Case:
    """A task with its model, parameters and batches of three sentences."""

    def __init__(self, *, intents=False, **changes):
        cfg = config(**{"data.label_column": "intent" if intents else None, **changes})
        tokenizers = {"text": TOKENIZER, "tag": TAGS}
        if intents:
            tokenizers["label"] = Labels("fg", [2, 1])
        self.cfg, self.task = cfg, Task.from_config(cfg, tokenizers)
        schema = get_model_class("transformer", "Config")
        self.model = self.task.make_model(schema(**cfg.model))
        batch = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), Task.example_batch(cfg)
        )
        init = functools.partial(self.task.init, self.model)
        self.variables = random_parameters(init, jax.random.key(0), batch)
        params = self.variables["params"]
        if "crf" in params:  # which begins without transitions
            params["crf"] = jax.tree.map(jnp.zeros_like, params["crf"])
        self.intents = INTENTS if intents else []
        self.batches = self.batches_of(SENTENCES)

    def batches_of(self, sentences):
        texts = TaggedTexts(sentences, TOKENIZER, self.cfg.data.max_length)
        labels = [TAGS.numbers(tags) for _, tags in sentences]
        intents = self.task.intents
        numbers = intents.numbers(self.intents) if intents else None
        return TaggedBatches(texts, labels, numbers, 4, 1)

    def loss(self, variables, batch, *, train):
        return self._loss(variables, batch, train)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _loss(self, variables, batch, train):
        rng = jax.random.key(0)
        return self.task.loss(self.model, variables, (), batch, rng, train=train)[0]

    def evaluate(self, variables=None, **options):
        return self.task.evaluate(
            self.model,
            variables or self.variables,
            self.batches,
            self.cfg,
            sentences=SENTENCES,
            intents=self.intents,
            **options,
        )

    def generate(self, *lines, variables=None, **options):
        variables = variables or self.variables
        return list(
            self.task.generate(self.model, variables, lines, self.cfg, **options)
        )


@functools.cache
def case(intents=False, crf=False):
    return Case(intents=intents, **{"head.crf": crf})


@functools.cache
def trained(crf):
    """The parameters after training on the sentences until they are known."""
    here = case(intents=True, crf=crf)
    batch = jax.tree.map(jnp.asarray, here.batches[0])
    optimizer = optax.adam(2e-2)

    def objective(variables):
        metrics = here.loss(variables, batch, train=True)
        return sum(total / weight for total, weight in metrics.values())

    @jax.jit
    def step(variables, state):
        gradient = jax.grad(objective)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state

    variables, state = here.variables, optimizer.init(here.variables)
    for _ in range(60):
        variables, state = step(variables, state)
    return variables


def test_the_loss_is_the_mean_cross_entropy_of_known_tags():
    here = case(intents=True)
    batch = jax.tree.map(jnp.asarray, here.batches[0])
    batch["weights"] = batch["weights"].at[0, 1].set(0)  # an unknown tag
    metrics = here.loss(here.variables, batch, train=False)
    apply = jax.jit(functools.partial(here.task.apply, here.model, train=False))
    logits, intents = apply(here.variables, batch, None)
    losses = -jax.nn.log_softmax(logits)
    expected = sum(
        losses[row, word, batch["labels"][row, word]]
        for row, word in zip(*np.nonzero(batch["weights"]), strict=True)
    )
    total, weight = metrics["loss"]
    assert weight == 7
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    total, weight = metrics["auxiliary/intent_loss"]
    losses = -jax.nn.log_softmax(intents)[jnp.arange(3), batch["intents"][:3]]
    assert (float(total), float(weight)) == (pytest.approx(float(losses.sum())), 3)


def test_the_loss_of_a_crf_is_that_of_sentences_whose_tags_are_all_known():
    here = case(crf=True)
    batch = jax.tree.map(jnp.asarray, here.batches[0])
    total, weight = here.loss(here.variables, batch, train=True)["loss"]
    assert weight == 3
    # Without transitions it is a softmax.
    plain, _ = case().loss(
        {"params": {k: v for k, v in here.variables["params"].items() if k != "crf"}},
        batch,
        train=True,
    )["loss"]
    assert float(total) == pytest.approx(float(plain), rel=1e-5)
    batch["weights"] = batch["weights"].at[0, 1].set(0)
    _, weight = here.loss(here.variables, batch, train=True)["loss"]
    assert weight == 2


def test_label_smoothing_shares_the_mass_among_all_classes():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)))
    labels = jnp.asarray([[0, 4, 2], [1, 1, 3]])
    target = 0.9 * jax.nn.one_hot(labels, 5) + 0.1 / 5
    expected = optax.softmax_cross_entropy(logits, target)
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("crf", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_trained_tagger_knows_its_sentences(crf):
    here = case(intents=True, crf=crf)
    card = here.evaluate(trained(crf))
    scores = {name: score["value"] for name, score in card["scores"].items()}
    loss = scores.pop("loss")
    assert set(scores.values()) == {100.0}
    assert loss < 0.1
    assert scores.keys() <= Task.metric_directions.keys()
    assert card["samples"][0] == {
        "source": "to new york",
        "reference": "O B-C I-C",
        "hypothesis": "O B-C I-C",
        "reference_intent": "f",
        "hypothesis_intent": "f",
    }
    assert [row["class"] for row in card["classes"]] == ["C"]
    assert card["protocol"]["words"] == 8
    assert card["protocol"]["crf"] == crf
    lines = ["york", "", "to new york"]
    [[(tags, p)], nothing, [(others, q)]] = here.generate(
        *lines, variables=trained(crf)
    )
    assert nothing == []
    assert others == "O B-C I-C\tf"
    assert 0 < p <= 1
    assert 0.5 < q <= 1
    # A line without a space is read by characters.
    assert len(tags.split("\t")[0].split()) == 4


def test_evaluation_has_intervals_and_losses_of_sentences():
    card = case(intents=True).evaluate(intervals=True)
    assert all({"low", "high"} <= score.keys() for score in card["scores"].values())
    assert card["blocks"].weight.tolist() == [3, 1, 4]
    assert card["scores"]["loss"]["value"] == pytest.approx(card["blocks"].mean)
    assert card["references"] == ["O B-C I-C", "B-C", "O O B-C O"]


@pytest.mark.parametrize("crf", [False, True])
def test_no_ill_formed_entities_are_predicted(crf):
    here = case(crf=crf)
    params = here.variables["params"]
    head = jax.tree.map(jnp.zeros_like, params["head"])
    head["bias"] = jnp.asarray([0.0, 5.0, 0.0])  # prefers I-C
    [[(tags, p)]] = here.generate(
        "to new", variables={"params": params | {"head": head}}
    )
    assert tags == "B-C I-C"
    total = 2 + np.exp(5.0)
    assert p == pytest.approx(np.exp(5.0) / total**2, rel=1e-4)


def test_words_that_are_cut_off_are_outside_and_told(capsys):
    here = Case(**{"data.max_length": 8})
    card = here.evaluate()
    assert all(
        len(sample["hypothesis"].split()) == len(words)
        for sample, (words, _) in zip(card["samples"], SENTENCES, strict=True)
    )
    [[(tags, _)]] = here.generate("to to to to")
    assert tags.split()[3:] == ["O"]
    assert capsys.readouterr().err == (
        "line 1 cut to data.max_length=8 tokens; 1 words lost\n"
    )


def test_tags_that_mark_no_entities_have_accuracies_only():
    cfg = config()
    tokenizers = {"text": TOKENIZER, "tag": Labels(["DET", "NOUN"], [1, 1])}
    task = Task.from_config(cfg, tokenizers)
    assert "f1" in task.missing_metrics()
    assert "token_accuracy" not in task.missing_metrics()
    scores = task.score([["DET"]], [["NOUN"]], [], [], intervals=False)
    assert scores.keys() == {"token_accuracy", "sentence_accuracy"}


def test_baselines_are_those_of_tags_and_of_intents():
    here = case(intents=True)
    dataset = types.SimpleNamespace(
        sentences=lambda split: SENTENCES,
        intents=lambda split: INTENTS,
        texts=lambda split: [(" ".join(words),) for words, _ in SENTENCES],
    )
    found = here.task.baselines(dataset, "test", sentences=SENTENCES, intents=INTENTS)
    assert found.keys() == {"most_frequent_tag", "majority", "naive_bayes"}
    assert found["most_frequent_tag"]["token_accuracy"] == 100
    assert found["majority"] == {"intent_accuracy": pytest.approx(200 / 3)}


def test_transitions_into_an_entity_come_from_its_type_only():
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    forbidden = forbidden_transitions(names)
    allowed = {"I-X": {"B-X", "I-X"}, "I-Y": {"B-Y", "I-Y"}}
    for column, name in enumerate(names):
        found = {names[row] for row in range(5) if not forbidden[row, column]}
        assert found == allowed.get(name, set(names))
    assert forbidden[-1].tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.regression": True}, "head.regression=True must be False"),
        ({"head.class_weights": "balanced"}, "head.class_weights=balanced must be"),
        ({"data.pair_column": "b"}, "data.pair_column=b must be None"),
        ({"head.crf": True, "label_smoothing": 0.1}, "needs head.crf=False"),
        ({"keep.metric": "intent_accuracy"}, "set data.label_column"),
        ({"data.tag_column": None}, "data.tag_column is not set"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Task.check_config(config(**changes))


def test_the_model_is_a_tagger_of_all_tags_and_intents():
    assert isinstance(case().model, Tagger)
    assert (case().model.num_tags, case().model.num_intents) == (3, 0)
    assert case(intents=True).model.num_intents == 2
