"""Heads that read chosen positions of a text: words, and marked entities."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import B, S, V, random_parameters, small_config, tokens
from models.heads.base import HeadConfig
from models.heads.relations import RelationClassifier
from models.heads.tagger import Tagger
from models.registry import ARCHITECTURES, get_model_class

STARTS = jnp.asarray([[1, 3, 4, 5], [1, 2, 0, 0]])  # the second text has two words
ENTITIES = jnp.asarray([[1, 4], [3, 2]])
L, I, C = 3, 9, 8  # noqa: E741


class Case:
    """A model with a head, its parameters and inputs."""

    def __init__(self, name, head, positions, config, *options):
        encoder = get_model_class(name, "Encoder")
        self.model = head(small_config(name), encoder, V, config, S, *options)
        text = tokens((B, S), V, seed=2)
        mask = jnp.arange(S) < jnp.asarray([[S], [S - 3]])
        carry = self.model.initial_carry(B, train=True)
        self.inputs = text, jnp.zeros_like(text), mask, positions, carry
        self.config = config
        init = nn.init(self.everything, self.model)
        self.params = random_parameters(init, jax.random.key(0), *self.inputs)
        self.apply = jax.jit(nn.apply(self.everything, self.model))

    def everything(self, model, *inputs):
        outputs, carry = model(*inputs, train=False)
        if self.config.crf:
            model.log_prob(outputs[0], STARTS * 0, STARTS > 0)
        return outputs, carry

    def run(self, **changes):
        """Returns the outputs of the head."""
        names = ("text", "segment_ids", "mask", "positions", "carry")
        inputs = dict(zip(names, self.inputs, strict=True)) | changes
        return self.apply(self.params, *inputs.values())[0]


@functools.cache
def tagger(name="transformer"):
    return Case(name, Tagger, STARTS, HeadConfig("mean", crf=True), L, I)


@functools.cache
def relations(name="transformer"):
    config = HeadConfig("max")
    return Case(name, RelationClassifier, ENTITIES, config, C)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_word_has_the_logits_of_its_first_token(name):
    case = tagger(name)
    tags, intents = case.run()
    assert tags.shape == (B, 4, L)
    assert intents.shape == (B, I)
    order = jnp.asarray([2, 0, 3, 1])
    moved, same = case.run(positions=STARTS[:, order])
    np.testing.assert_allclose(moved, tags[:, order], atol=1e-5)
    np.testing.assert_array_equal(same, intents)
    assert not np.allclose(tags[0, 0], tags[0, 1])


@pytest.mark.parametrize("make", [tagger, relations])
def test_padding_changes_no_logits(make):
    case = make()
    text, _, mask, *_ = case.inputs
    found = case.run()
    noisy = case.run(text=jnp.where(mask, text, (text + 5) % V))
    for one, other in zip(*map(jax.tree.leaves, (found, noisy)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_tagger_without_intents_and_crf_has_no_parameters_for_them():
    plain = Case("transformer", Tagger, STARTS, HeadConfig(), L)
    assert plain.run()[1] is None
    assert plain.params["params"].keys() == {"encoder", "head"}
    joint = tagger().params["params"].keys()
    assert joint == {"encoder", "head", "crf", "intent_head"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_markers_of_entities_decide_a_relation(name):
    case = relations(name)
    logits = case.run()
    assert logits.shape == (B, C)
    swapped = case.run(positions=ENTITIES[:, ::-1])
    assert np.abs(logits - swapped).max(axis=1).min() > 1e-3


def test_a_relation_is_a_linear_map_of_both_markers_and_the_pooled_text():
    case = relations()

    def states(model, *inputs):
        hidden, _ = model.encode(*inputs[:3], inputs[4], train=False)
        return hidden, model.pooler(hidden, inputs[2])

    apply = jax.jit(nn.apply(states, case.model))
    hidden, pooled = map(np.asarray, apply(case.params, *case.inputs))
    first, second = hidden[np.arange(B), np.asarray(ENTITIES).T]
    head = jax.tree.map(np.asarray, case.params["params"]["head"])
    features = np.concatenate([first, second, pooled], axis=1)
    expected = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(case.run(), expected, atol=1e-4)
