"""Attention in one function is attention by way of its weights, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.dot_product import AttentionInputs, xla_attention
from models.attention.multi_head import SelfAttention
from models.attention.positions import sinusoidal_encoding
from models.common.masks import causal_mask

B, T, M, D, H = 2, 5, 3, 12, 3


def layer(dropout):
    return SelfAttention(
        heads=H, width=D, head_dim=4, dropout=dropout, position_encoding="relative",
        untie_biases=True,
    )  # fmt: skip


def example():
    x = jax.random.normal(jax.random.key(0), (B, M + T, D))
    mask = jnp.repeat(causal_mask(T, M + T), B, axis=0)
    return x, mask.at[1, 2].set(False)  # a query that may look nowhere


def outcome(module, variables, x, mask, *, watched):
    """Output, and the gradient of a number made of it, by x and parameters."""
    distances = jnp.arange(M + T - 1, -1, -1)
    places = jnp.arange(M + T)[None]
    weights = jax.random.normal(jax.random.key(2), (B, T, D))

    def run(variables, x):
        def call(module, x):
            kept = module.project_kv(x, places)
            encodings = sinusoidal_encoding(distances, D, interleaved=False)
            by_distance = module.project_relative_positions(distances, encodings)
            return module(x[:, M:], kept, mask, places[:, M:], by_distance, train=True)

        found = module.apply(
            variables,
            x,
            method=call,
            rngs={"dropout": jax.random.key(3)},
            mutable=["intermediates"] if watched else [],
        )[0]
        return (found * weights).sum(), found

    gradient = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (_, found), gradients = jax.jit(gradient)(variables, x)
    return found, gradients


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_outputs_and_gradients_are_those_of_the_weights(dropout):
    module = layer(dropout)
    x, mask = example()

    def first(module, x):
        places = jnp.arange(M + T)[None]
        distances = jnp.arange(M + T - 1, -1, -1)
        encodings = sinusoidal_encoding(distances, D, interleaved=False)
        by_distance = module.project_relative_positions(distances, encodings)
        kept = module.project_kv(x, places)
        return module(x[:, M:], kept, mask, places[:, M:], by_distance, train=False)

    variables = module.init(jax.random.key(1), x, method=first)
    variables = {"params": variables["params"]}
    whole = outcome(module, variables, x, mask, watched=True)
    ours = outcome(module, variables, x, mask, watched=False)
    leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(whole), strict=True)
    for one, other in leaves:
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=2e-6)
    bias = variables["params"]["output"]["bias"]
    nothing = np.broadcast_to(getattr(bias, "value", bias), (D,))
    np.testing.assert_allclose(ours[0][1, 2], nothing, atol=1e-6)


def test_one_array_of_the_size_of_scores_is_kept():
    _, mask = example()
    heads = jax.random.normal(jax.random.key(0), (B, H, T, 4))
    keys = jax.random.normal(jax.random.key(1), (B, H, M + T, 4))
    draw = jnp.array([1, 2], jnp.uint32)

    def found(content, keys):
        return xla_attention(
            AttentionInputs(content, keys), keys, mask[:, None], draw, 0.5
        )

    _, pull = jax.vjp(found, heads, keys)
    large = [leaf for leaf in jax.tree.leaves(pull) if leaf.size >= B * H * T * (M + T)]
    assert len(large) == 1, [leaf.shape for leaf in large]
