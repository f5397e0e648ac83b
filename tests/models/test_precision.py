"""Tests of bfloat16: which products use it, and how far results differ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from helpers.architectures import (
    B,
    LanguageModelCase,
    Seq2SeqCase,
    T,
    V,
    names,
    small_config,
    tokens,
)
from models.common import blockwise_cross_entropy
from models.common.layers import Embedding, normal
from models.rnn.cells import GRU, zero_state
from tasks.base import cast_params, likelihood_loss

FLOAT32, BFLOAT16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
KINDS = {"language model": LanguageModelCase, "translation": Seq2SeqCase}
PLAIN = {f"{name}, {kind}": (kind, name, {}) for name in names() for kind in KINDS}
OPTIONS = {
    "adaptive": ("transformer", {"cutoffs": (7, 19), "div_val": 2}),
    "narrow": ("transformer", {"embedding_width": 10, "position_encoding": "rotary"}),
    "per layer": ("transformer", {"position_encoding": "learned_per_layer"}),
    "shaw": ("transformer", {"position_encoding": "shaw", "max_distance": 2}),
    "untied biases": ("transformer_xl", {"untie_biases": True}),
    "published": ("rnn", {"cell": "gru_reset_before", "score": "dot"}),
    "awd": (
        "rnn",
        {
            "cell": "lstm",
            "readout": "none",
            "attention_window": 0,
            "variational_dropout": True,
            "weight_dropout": 0.2,
            "dropout_embedding": 0.2,
            "activation_regularization": 1.0,
            "temporal_activation_regularization": 1.0,
        },
    ),
    "feeding": ("rnn", {"input_feeding": True, "cell": "lstm"}),
}
CASES = PLAIN | {
    key: ("translation" if key == "feeding" else "language model", *option)
    for key, option in OPTIONS.items()
}
SIZES = {"rotary": {"head_dim": 6}}


@functools.cache
def case(key, dtype="bfloat16", **changes):
    """A small model, with gelu: gradients of relu jump if rounding crosses 0."""
    kind, name, own = CASES[key]
    even = SIZES.get(own.get("position_encoding"), {})
    return KINDS[kind](name, dtype=dtype, activation="gelu", **own, **even, **changes)


def carry_of(found):
    """A random carry, not computed by a model."""
    noise = np.random.default_rng(5)

    def fill(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(noise.normal(size=leaf.shape), leaf.dtype)
        return jnp.full_like(leaf, 2)

    return jax.tree.map(fill, found.carry(B, memory_length=4))


def objective(found):
    """Function from parameters to the training loss, with metrics and carry."""
    carry = carry_of(found)
    if isinstance(found, Seq2SeqCase):
        inputs, labels = (*found.inputs(), carry), found.target
    else:
        inputs, labels = (tokens((B, T)), carry), tokens((B, T), seed=4)
    batch = {"labels": labels, "weights": jnp.ones(labels.shape)}

    def loss(variables):
        pairs, after = likelihood_loss(
            found.model,
            variables,
            inputs,
            batch,
            jax.random.key(0),
            smoothing=0.0,
            train=True,
        )
        return sum(total / weight for total, weight in pairs.values()), (pairs, after)

    return loss


@functools.cache
def training(key, dtype):
    """Loss with metrics and carry, and gradients."""
    found = case(key, dtype, layers=1)
    gradient = jax.jit(jax.value_and_grad(objective(found), has_aux=True))
    return gradient(found.variables)


def products(jaxpr):
    """All matrix products of a program, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("key", CASES)
def test_every_product_of_a_training_step_is_in_bfloat16(key):
    found = case(key, **({"dropout": 0.1} if key == "awd" else {}))
    gradient = jax.grad(objective(found), has_aux=True)
    trace = jax.make_jaxpr(gradient, return_shape=True)
    program, (grads, (pairs, _)) = trace(found.variables)
    assert {leaf.dtype for leaf in jax.tree.leaves((grads, pairs))} == {FLOAT32}
    made = list(products(program.jaxpr))
    assert len(made) > 5
    for product in made:
        assert {v.aval.dtype for v in product.invars} == {BFLOAT16}


# Both kinds of models, with layers that scan and without.
FEW = ("rnn, translation", "transformer_xl, language model")
KEYS = [pytest.param(x, marks=[pytest.mark.slow] * (x not in FEW)) for x in PLAIN]


@pytest.mark.parametrize("key", KEYS)
def test_loss_and_gradients_are_close_to_those_in_float32(key):
    # bfloat16 has 8 bits, a relative error of 1/256, part of which averages out.
    (near, (_, after)), grads = training(key, "bfloat16")
    (loss, _), exact = training(key, "float32")
    assert 0 < abs(near - loss) < 0.005 * loss
    difference = jax.tree.map(lambda one, other: one - other, grads, exact)

    def length(tree):
        return np.sqrt(sum(float(jnp.vdot(x, x)) for x in jax.tree.leaves(tree)))

    assert length(difference) < 0.03 * length(exact)
    assert types(after) == types(carry_of(case(key, layers=1)))


@pytest.mark.parametrize("key", KEYS)
def test_generation_equals_one_pass_with_matrices_cast_once(key):
    found = case(key)
    variables = cast_params(found.model, found.variables)
    if isinstance(found, Seq2SeqCase):
        carry, text = carry_of(found), found.target
        _, whole, _ = found.run(carry)
        start = found.source, found.source_mask, carry
        first = 0
    else:
        carry, text, first = carry_of(found), tokens((B, T)), 3
        _, whole, _ = found.run(text, carry)
        start = text[:, :first], jnp.ones((B, first), bool), carry
    begin = functools.partial(found.model.apply, method="start", max_steps=T)
    context, state = jax.jit(begin)(variables, *start)
    once = types(state)
    for t in range(first, T):
        state, logits = found._step(variables, context, state, text[:, t : t + 1])
        assert logits.dtype == jnp.float32
        assert types(state) == once
        valid = np.asarray(found.target_mask[:, t]) if not first else slice(None)
        np.testing.assert_allclose(logits[valid, 0], whole[valid, t], atol=0.1)
    assert np.std(whole) > 0.5  # much more than the tolerance


def test_gradients_of_a_frequent_word_are_summed_in_float32():
    # In bfloat16 a sum of ones stops growing at 256.
    embedding, text = Embedding(V, 3, normal(1.0)), jnp.zeros((2, 500), jnp.int32)

    def total(variables):
        vectors = embedding.apply(variables, text, jnp.bfloat16)
        return vectors.astype(jnp.float32).sum()

    variables = {"params": {"table": jnp.ones((V, 3))}}
    found = jax.grad(total)(variables)["params"]["table"]
    np.testing.assert_array_equal(found[0], text.size)


def test_gradients_of_recurrent_weights_are_summed_in_float32():
    # Each step adds about the same to the candidate's; a sum in bfloat16 would
    # stop growing at less than half.
    cell, length = GRU(1), 600
    x, mask = jnp.ones((1, length, 1), jnp.bfloat16), jnp.ones((1, length), bool)

    def total(recurrent, dtype):
        variables = {
            "params": {
                "input": {
                    "kernel": jnp.zeros((1, 3)),
                    "bias": jnp.asarray([0, 0, 1.0]),
                },
                "recurrent": recurrent,
                "candidate_bias": jnp.zeros(1),
            }
        }
        start = zero_state("gru", 1, 1, dtype)
        outputs, _ = cell.apply(variables, x.astype(dtype), start, mask, train=False)
        return outputs.astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    near, exact = (
        gradient(jnp.zeros((1, 3)), dtype) for dtype in (jnp.bfloat16, jnp.float32)
    )
    np.testing.assert_allclose(near[0, 2], exact[0, 2], rtol=0.02)


@pytest.mark.parametrize("entries", [2**22, 64])
def test_a_blockwise_loss_sums_the_gradient_of_its_table_in_float32(
    monkeypatch, entries
):
    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", entries)
    length = 600
    hidden = jnp.ones((1, length, 1), jnp.bfloat16)
    labels = jnp.zeros((1, length), jnp.int32)

    def loss(table):
        bias = jnp.zeros(2)
        return blockwise_cross_entropy.blockwise_log_prob(
            hidden, labels, table, bias, 0.0
        )[0].sum()

    grads = jax.jit(jax.grad(loss))(jnp.zeros((2, 1)))
    np.testing.assert_allclose(grads[:, 0], [length / 2, -length / 2], rtol=1e-3)


@pytest.mark.parametrize("name", names())
def test_other_types_are_rejected(name):
    with pytest.raises(
        ValueError, match=r"Unknown model\.dtype 'float16'; choose one of float32"
    ):
        small_config(name, dtype="float16")
