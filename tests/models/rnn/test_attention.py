"""Tests of attention scores against their formulas, as loops in NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.architectures import small_config
from models.rnn.attention import SingleHeadAttention
from models.rnn.config import SCORES

# All different, so that a swapped axis cannot pass.
B, T, S, D, E, A, VALUE = 2, 3, 5, 4, 9, 7, 6


def attention(name):
    config = small_config("rnn", score=name, attention_width=A, width=D)
    return SingleHeadAttention(config)


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def softmax(scores, mask):
    weights = np.where(mask, np.exp(scores - scores.max()), 0.0)
    return weights / weights.sum() if weights.any() else weights


def make(name):
    """Returns a function of queries, states and values, its parameters and inputs."""
    module = attention(name)
    size = D if name in ("dot", "scaled_dot") else E
    query, states = random(B, T, D, seed=1), random(B, S, size, seed=2)
    values = random(B, S, VALUE, seed=3)
    mask = jnp.arange(S) < jnp.asarray([S, 3])[:, None]

    def both(module, query, states, values, mask):
        keys = module.project_keys(states)
        return module(query, keys, values, mask[:, None])

    inputs = (query, states, values, mask)
    variables = nn.meta.unbox(nn.init(both, module)(jax.random.key(0), *inputs))
    params = {
        k: np.asarray(v["kernel"]) for k, v in variables.get("params", {}).items()
    }
    return nn.apply(both, module), variables, params, inputs


def formula(name, params, query, key):
    """Computes the score of one query and one key."""
    if name == "additive":
        hidden = np.tanh(query @ params["query"] + key @ params["key"])
        return hidden @ params["score"][:, 0]
    if name == "bilinear":
        return query @ (key @ params["key"])
    return sum(q * k for q, k in zip(query, key, strict=True)) / (
        np.sqrt(D) if name == "scaled_dot" else 1.0
    )


@pytest.mark.parametrize("name", SCORES)
def test_a_score_computes_the_formula_of_its_paper(name):
    run, variables, params, inputs = make(name)
    contexts, weights = run(variables, *inputs)
    query, states, values, mask = map(np.asarray, inputs)
    for b in range(B):
        for t in range(T):
            scores = [
                formula(name, params, query[b, t], states[b, s]) for s in range(S)
            ]
            expected = softmax(np.asarray(scores), mask[b])
            np.testing.assert_allclose(weights[b, t], expected, atol=1e-5)
            found = sum(expected[s] * values[b, s] for s in range(S))
            np.testing.assert_allclose(contexts[b, t], found, atol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_padding_changes_nothing_and_no_keys_give_zeros(name):
    run, variables, _, (query, states, values, mask) = make(name)
    noise = jnp.where(mask, 0.0, 100.0)[..., None]
    clean = run(variables, query, states, values, mask)
    noisy = run(variables, query, states + noise, values + noise, mask)
    for ours, theirs in zip(clean, noisy, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    contexts, weights = run(variables, query, states, values, mask.at[1].set(False))
    np.testing.assert_array_equal(contexts[1], 0.0)
    np.testing.assert_array_equal(weights[1], 0.0)


def test_dot_products_equal_a_worked_example():
    states = jnp.asarray([[[1.0, 0.5], [0.8, 1.2], [0.2, 1.5]]])
    query, mask = jnp.asarray([[[0.8, 0.3]]]), jnp.ones((1, 1, 3), bool)
    module = attention("dot")
    scores = module.apply({}, query, states, method="compute_score")
    np.testing.assert_allclose(scores[0, 0], [0.95, 1.00, 0.61], atol=0.005)
    context, weights = module.apply({}, query, states, states, mask)
    np.testing.assert_allclose(weights[0, 0], [0.36, 0.38, 0.26], atol=0.005)
    np.testing.assert_allclose(context[0, 0], [0.72, 1.02], atol=0.005)


@pytest.mark.parametrize("name", ["dot", "scaled_dot"])
def test_a_dot_product_of_unequal_widths_is_refused_with_alternatives(name):
    module, inputs = attention(name), (random(B, T, D), random(B, S, E))
    with pytest.raises(
        ValueError, match=r"width 4 .* width 9 .* make the widths equal"
    ):
        module.apply({}, *inputs, method="compute_score")
