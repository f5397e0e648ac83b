"""Tests of masked language modeling and next-sentence prediction.

`tests/models/test_goldens.py` compares them with BERT's.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import B, S, V, random_parameters, small_config, tokens
from models.heads.base import HeadConfig
from models.heads.masked_lm import MaskedLanguageModel
from models.registry import ARCHITECTURES, get_model_class

P = 3
CASES = {
    **{name: (name, {}) for name in ARCHITECTURES},
    "tied": ("transformer", {"tie_embeddings": True}),
    "tied rnn": ("rnn", {"tie_embeddings": True}),
    "bfloat16": ("transformer", {"dtype": "bfloat16"}),
    "adaptive": ("transformer", {"cutoffs": (7, 19), "div_val": 2}),
    "tied adaptive": ("transformer", {"cutoffs": (9,), "tie_embeddings": True}),
}


class Case:
    """A masked language model, its parameters and inputs."""

    def __init__(self, key, *, next_sentence=True):
        name, changes = CASES[key]
        encoder = get_model_class(name, "Encoder")
        self.model = MaskedLanguageModel(
            small_config(name, **changes), encoder, V, HeadConfig(), S, next_sentence
        )
        self.text = tokens((B, S), V, seed=2)
        self.mask = jnp.arange(S) < jnp.asarray([[S], [S - 3]])
        self.positions = jnp.asarray([[5, 1, 6], [3, 0, 2]])
        carry = self.model.initial_carry(B, train=True)
        inputs = (self.text, self.text % 2, self.mask, self.positions, carry)

        def everything(model, *inputs):
            (hidden, following), carry = model(*inputs, train=False)
            return hidden, following, carry, model.logits(hidden)

        self.apply = jax.jit(nn.apply(everything, self.model))
        init = nn.init(everything, self.model)
        self.params = random_parameters(init, jax.random.key(0), *inputs)["params"]
        self.inputs = inputs

    def run(self, params=None, **changes):
        """Returns hidden states, next-sentence logits, carry and logits."""
        names = ("text", "segment_ids", "mask", "positions", "carry")
        inputs = dict(zip(names, self.inputs, strict=True)) | changes
        return self.apply({"params": params or self.params}, *inputs.values())


case = functools.cache(Case)


@pytest.mark.parametrize("key", CASES)
def test_logits_of_chosen_tokens_and_of_the_next_sentence_are_in_float32(key):
    found = case(key)
    hidden, following, carry, logits = jax.eval_shape(found.run)
    assert hidden.shape[:2] == (B, P)
    assert (logits.shape, logits.dtype) == ((B, P, V), jnp.float32)
    assert (following.shape, following.dtype) == ((B, 2), jnp.float32)
    assert jax.tree.structure(carry) == jax.tree.structure(found.inputs[-1])


@pytest.mark.parametrize("key", CASES)
def test_log_prob_is_the_log_softmax_of_the_logits(key):
    found = case(key)
    hidden, _, _, logits = found.run()
    labels = tokens((B, P), V, seed=4)
    apply = jax.jit(functools.partial(found.model.apply, method="log_prob"))
    scored = apply({"params": found.params}, hidden, labels)
    exact = np.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    np.testing.assert_allclose(scored, exact[..., 0], atol=1e-5)


@pytest.mark.parametrize("key", ["tied", "tied rnn", "tied adaptive"])
def test_a_tied_output_layer_has_a_bias_but_no_table(key):
    params = case(key).params
    assert not [name for name in params["head"] if name.startswith("table")]
    assert [name for name in params["head"] if name.startswith("bias")]


def test_each_prediction_is_that_of_its_position():
    found = case("transformer")
    logits = found.run()[3]
    reordered = found.run(positions=found.positions[:, ::-1])[3]
    np.testing.assert_array_equal(logits[:, ::-1], reordered)
    everywhere = jnp.broadcast_to(jnp.arange(S), (B, S))
    whole = found.run(positions=everywhere)[3]
    chosen = np.take_along_axis(whole, np.asarray(found.positions)[..., None], axis=1)
    np.testing.assert_allclose(logits, chosen, atol=1e-6)


def test_gradients_of_both_objectives_reach_every_parameter():
    found = case("tied")

    def loss(params):
        _, following, _, logits = found.run(params)
        return jax.nn.log_softmax(logits)[..., 3].sum() + following[:, 0].sum()

    gradients = jax.jit(jax.grad(loss))(found.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_without_next_sentences_there_is_no_such_layer():
    found = case("transformer", next_sentence=False)
    assert not {"pooler", "next_head"} & found.params.keys()
    assert found.run()[1] is None
