"""Tests of the blockwise loss over a vocabulary and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from models.common import blockwise_cross_entropy
from models.common.blockwise_cross_entropy import blockwise_log_prob

B, T, D, V = 3, 13, 6, 50
N = B * T


def example():
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (B, T, D))
    table = jax.random.normal(keys[1], (V, D))
    bias = jax.random.normal(keys[2], (V,))
    return hidden, jax.random.randint(keys[3], (B, T), 0, V), table, bias


def formula(hidden, labels, table, bias, smoothing):
    found = jax.nn.log_softmax(hidden @ table.T + bias)
    label = jnp.take_along_axis(found, labels[..., None], axis=-1)[..., 0]
    return (1 - smoothing) * label + smoothing * found.mean(axis=-1)


def log_prob(*inputs):
    return blockwise_log_prob(*inputs)[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("entries", [1, V, 7 * N, N * V])
def test_chunks_do_not_change_loss_and_gradients(monkeypatch, smoothing, entries):
    hidden, labels, table, bias = example()
    weights = jnp.arange(N).reshape(B, T) / N

    def loss(log_prob):
        def weighted(hidden, table, bias):
            return (log_prob(hidden, labels, table, bias, smoothing) * weights).sum()

        gradient = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2)))
        return gradient(hidden, table, bias)

    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", entries)
    whole, chunked = loss(formula), loss(log_prob)
    for ours, theirs in zip(
        jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("entries", [4 * B * V, N * V])
def test_log_z_and_its_gradient_follow_the_formula(monkeypatch, entries):
    hidden, labels, table, bias = example()
    weights = jnp.arange(N).reshape(B, T) / N

    def ours(hidden, table, bias):
        log_probs, log_z = blockwise_log_prob(hidden, labels, table, bias, 0.1)
        return (log_z**2 * weights).sum(), (log_probs, log_z)

    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", entries)
    gradient = jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True)
    (_, (log_probs, log_z)), found = gradient(hidden, table, bias)
    logits = np.asarray(hidden) @ np.asarray(table).T + np.asarray(bias)
    exact = np.log(np.exp(logits).sum(axis=-1))
    np.testing.assert_allclose(log_z, exact, atol=1e-5)
    alone = log_prob(hidden, labels, table, bias, 0.1)
    np.testing.assert_array_equal(log_probs, alone)
    # d (w log^2 Z) / d logit = 2 w log Z p
    d_logits = (
        2 * (np.asarray(weights) * exact)[..., None] * np.exp(logits - exact[..., None])
    )
    expected = (
        d_logits @ np.asarray(table),
        np.einsum("BTV,BTD->VD", d_logits, hidden),
        d_logits.sum(axis=(0, 1)),
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def sizes(jaxpr):
    """Sizes of all arrays that a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (int(np.prod(v.aval.shape)) for v in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


def test_no_array_has_the_size_of_all_logits(monkeypatch):
    hidden, labels, table, bias = example()

    def largest():
        def loss(hidden, table):
            return log_prob(hidden, labels, table, bias, 0.1).sum()

        program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(hidden, table)
        return max(sizes(program.jaxpr))

    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", N * V)
    assert largest() >= N * V  # they would be found
    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", 10 * N)
    assert largest() <= max(10 * N, V * D)
