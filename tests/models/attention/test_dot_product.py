"""Comparison of `xla_attention` with plain attention and with its papers' formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.dot_product import (
    AttentionInputs,
    dot_product_attention,
    xla_attention,
)
from models.attention.multi_head import SelfAttention
from models.attention.positions import sinusoidal_encoding
from models.common.dropout import DropoutMask
from models.common.masks import causal_mask

B, T, M, D, H, K = 2, 5, 3, 12, 3, 4
S = M + T
DROPOUT_KEYS = jnp.array([1, 2], jnp.uint32)


def random(*shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def example():
    """Inputs of relative attention, and a mask with an empty row."""
    query, position_query = random(2, B, H, T, K, seed=0)
    key, value = random(2, B, H, S, K, seed=1)
    relative_keys = random(S, H, K, seed=2)
    mask = jnp.repeat(causal_mask(T, S), B, axis=0)[:, None].at[1, 0, 2].set(False)
    inputs = AttentionInputs(query, key, value, position_query, relative_keys)
    return inputs, mask


def test_plain_attention_is_the_formula_of_the_papers():
    inputs, mask = example()
    output, weights = dot_product_attention(inputs, mask)
    q, k, v, p, r = map(np.asarray, inputs)
    for b, h, t in np.ndindex(B, H, T):
        logits = [q[b, h, t] @ k[b, h, s] for s in range(S)]
        # Column c of the relative keys is the position S - 1 - c of a query to a key.
        for s in range(M + t + 1):
            logits[s] += p[b, h, t] @ r[S - 1 - (M + t - s), h]
        exps = np.where(mask[b, 0, t], np.exp(np.asarray(logits) / np.sqrt(K)), 0)
        expected = exps / exps.sum() if exps.any() else exps
        np.testing.assert_allclose(weights[b, h, t], expected, atol=1e-6)
        np.testing.assert_allclose(output[b, h, t], expected @ v[b, h], atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_xla_attention_and_its_gradients_equal_those_of_plain_attention(rate):
    inputs, mask = example()
    dropout = DropoutMask.from_rate(DROPOUT_KEYS, rate) if rate else None
    weights = random(B, H, T, K, seed=3)

    def plain(inputs):
        return (dot_product_attention(inputs, mask, dropout)[0] * weights).sum()

    def custom(inputs):
        return (xla_attention(inputs, mask, dropout) * weights).sum()

    found, expected = (
        jax.jit(jax.value_and_grad(run))(inputs) for run in (custom, plain)
    )
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=1e-5)


def make_layer(dropout):
    return SelfAttention(
        heads=H,
        width=D,
        head_dim=K,
        dropout=dropout,
        position_encoding="relative",
        untie_biases=True,
    )


def call_layer(module, x, mask, *, train):
    """Self-attention of the last T positions over all S."""
    relative, positions = jnp.arange(S - 1, -1, -1), jnp.arange(S)[None]
    encodings = sinusoidal_encoding(relative, D, interleaved=False)
    relative_keys = module.project_relative_positions(relative, encodings)
    kv = module.project_kv(x, positions)
    return module(x[:, M:], kv, mask, positions[:, M:], relative_keys, train=train)


def run_layer(module, variables, x, mask, *, sows_weights):
    """Output, and the gradients of a weighted sum of it by x and parameters."""
    weights = random(B, T, D, seed=2)

    def run(variables, x):
        output = module.apply(
            variables,
            x,
            method=lambda module, x: call_layer(module, x, mask, train=True),
            rngs={"dropout": jax.random.key(3)},
            mutable=["intermediates"] if sows_weights else [],
        )[0]
        return (output * weights).sum(), output

    gradient = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (_, output), gradients = jax.jit(gradient)(variables, x)
    return output, gradients


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_layer_that_sows_its_weights_has_the_same_outputs_and_gradients(dropout):
    module, x = make_layer(dropout), random(B, S, D, seed=0)
    mask = jnp.repeat(causal_mask(T, S), B, axis=0).at[1, 2].set(False)
    variables = module.init(
        jax.random.key(1),
        x,
        method=lambda module, x: call_layer(module, x, mask, train=False),
    )
    variables = {"params": variables["params"]}
    expected = run_layer(module, variables, x, mask, sows_weights=True)
    found = run_layer(module, variables, x, mask, sows_weights=False)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=2e-6)
    # A query without keys gets zeros, so that only the output's bias is left.
    bias = variables["params"]["output"]["bias"]
    expected_bias = np.broadcast_to(getattr(bias, "value", bias), (D,))
    np.testing.assert_allclose(found[0][1, 2], expected_bias, atol=1e-6)


def test_one_array_of_the_size_of_the_logits_is_stored():
    inputs, mask = example()
    dropout = DropoutMask.from_rate(DROPOUT_KEYS, 0.5)

    def run(query, key):
        partial = AttentionInputs(query, key, inputs.value)
        return xla_attention(partial, mask, dropout)

    _, pull = jax.vjp(run, inputs.query, inputs.key)
    large = [leaf for leaf in jax.tree.leaves(pull) if leaf.size >= B * H * T * S]
    assert len(large) == 1, [leaf.shape for leaf in large]
