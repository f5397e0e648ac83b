"""Tests of the recurrent encoder: blocks of its attention, and its dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import (
    B,
    EncoderCase,
    S,
    V,
    random_parameters,
    small_config,
)
from models.rnn import encoder as rnn


def results():
    """Returns hidden states, attention weights, and gradients of an encoder."""
    found = EncoderCase("rnn", layers=1)
    apply = functools.partial(found.model.apply, train=False, mutable="intermediates")
    (hidden, _), weights = jax.jit(apply)(found.variables, *found.inputs(), ())
    gradients = jax.jit(jax.grad(found.loss(())))(found.variables["params"])
    return hidden, weights, gradients


@pytest.fixture(scope="module")
def whole():
    return results()


@pytest.mark.parametrize("entries", [1, 3 * B * S * 14])  # one and three queries
def test_blocks_of_queries_give_the_same_states_weights_and_gradients(
    entries, whole, monkeypatch
):
    monkeypatch.setattr(rnn, "MAX_SCORE_ENTRIES", entries)
    hidden, *others = results()
    np.testing.assert_allclose(hidden, whole[0], atol=1e-6)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, others, list(whole[1:]))


def test_a_long_text_does_not_store_the_hidden_layer_of_the_score():
    config = small_config("rnn", layers=1, attention_width=256)
    model = rnn.Encoder(config, V)
    length, batch_size = 512, 16
    text = jax.ShapeDtypeStruct((batch_size, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch_size, length), bool)
    inputs = text, text, mask, ()
    init = functools.partial(model.init, jax.random.key(0), train=False)
    variables = random_parameters(init, *inputs)

    def loss(variables, *inputs):
        return model.apply(variables, *inputs, train=True)[0].sum()

    program = jax.jit(jax.grad(loss)).lower(variables, *inputs).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2**29


@pytest.mark.parametrize("key", ["dropout_embedding", "weight_dropout"])
def test_each_rate_drops_in_training_unless_the_dropout_is_zero(key):
    rngs = {"dropout": jax.random.key(1)}
    plain = EncoderCase("rnn", layers=1).run()[0]
    for rate, drops in ((1e-6, True), (0.0, False)):
        case = EncoderCase("rnn", layers=1, dropout=rate, **{key: 0.5})
        found = case.run(train=True, rngs=rngs)[0]
        assert (np.abs(found - plain).max() > 1e-3) == drops
        np.testing.assert_array_equal(case.run()[0], plain)
