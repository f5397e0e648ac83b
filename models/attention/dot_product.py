"""Attention as one function with a gradient of its own: less is kept and made.

What is kept for the backward pass is one array of scores' size, exponentials that are
not yet normalised; the division by their sum is of what is found, not of weights
(as Milakov and Gimelshein 2018 and Dao et al. 2022 do it):

    found = (sum_j e_j v_j) / l,   e_j = exp(s_j - max s),   l = sum_j e_j
    ds_j  = e_j / l * (g . v_j - g . found)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.relative import relative_shift
from models.common.dropout import DropoutMask, Keys, apply_dropout_mask
from models.common.dtypes import Scalar, upcast_to_f32
from models.common.matmul import kv_gradient, qk_logits, relative_logits


class AttentionInputs(NamedTuple):
    """Queries and the keys that they meet.

    Attributes:
      query, key: queries and keys, not yet scaled.
      position_query: queries of the relative positions; None without these.
      relative_keys: one key for each relative position, see `relative_shift`.
    """

    query: Float[Array, "B H T Dh"]
    key: Float[Array, "B H S Dh"]
    position_query: Float[Array, "B H T Dh"] | None = None
    relative_keys: Float[Array, "C H Dh"] | None = None


def attention_logits(
    inputs: AttentionInputs, ring_start: Int[Array, ""] | None = None
) -> Float[Array, "B H T S"]:
    """Scores of every query with every key, not yet scaled.

    Args:
      ring_start: slot of the oldest key, where slots are a ring; else the first.
    """
    content, keys, position, distances = inputs
    scores = qk_logits(content, keys)
    if distances is None:
        return scores
    by_distance = jnp.swapaxes(relative_logits(position, distances), 0, 1)
    by_distance = relative_shift(by_distance, keys.shape[2])
    if ring_start is not None:
        by_distance = jnp.roll(by_distance, ring_start, axis=-1)
    return scores + by_distance


def masked_exp(
    scores: Float[Array, "B H T S"], mask: Bool[Array, "#B 1 #T S"]
) -> tuple[Float[Array, "B H T S"], Float[Array, "B H T 1"]]:
    """e of scaled scores, 0 where a query may not look, and l."""
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    largest = scores.max(axis=-1, keepdims=True)
    powers = jnp.where(mask, jnp.exp(scores - largest), 0)
    return powers, powers.sum(axis=-1, keepdims=True)


def dot_product_attention(
    inputs: AttentionInputs,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout: Scalar,
) -> Float[Array, "B H T Dh"]:
    """softmax(scores / sqrt(Dh)) V, zeros for a query that may look nowhere.

    Args:
      dropout_keys: of the dropout of weights; None: no weight is left out.
    """
    draw = make_dropout_mask(dropout_keys, dropout)
    return dot_product_attention_chunk(
        inputs, values, mask, draw, inputs.query.shape[2]
    )


def make_dropout_mask(dropout_keys: Keys | None, dropout: Scalar) -> DropoutMask | None:
    """Of the dropout of weights, or None."""
    return (
        None if dropout_keys is None else DropoutMask.from_rate(dropout_keys, dropout)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def dot_product_attention_chunk(
    inputs: AttentionInputs,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    draw: DropoutMask | None,
    num_queries: int,
) -> Float[Array, "B H T Dh"]:
    """The same, of T queries out of `num_queries`, for whose weights the draw is."""
    return _forward(inputs, values, mask, draw, num_queries)[0]


def _forward(inputs, values, mask, draw, num_queries):
    scores, pull = jax.vjp(attention_logits, inputs)
    powers, total = masked_exp(upcast_to_f32(scores * values.shape[-1] ** -0.5), mask)
    powers = powers.astype(values.dtype)
    seen = _dropped(powers, draw, num_queries)
    found = jnp.einsum("BHTS,BHSK->BHTK", seen, values)
    found = found * _inverse(total).astype(values.dtype)
    return found, (pull, powers, total, values, found, draw)


def _backward(num_queries, saved, gradient):
    pull, powers, total, values, found, draw = saved
    gradient = gradient * _inverse(total).astype(values.dtype)
    seen = _dropped(powers, draw, num_queries)
    by_values = kv_gradient(gradient, seen)
    by_power = jnp.einsum("BHTK,BHSK->BHTS", gradient, values)
    by_power = upcast_to_f32(_dropped(by_power, draw, num_queries))
    mean = upcast_to_f32(gradient * found).sum(axis=-1, keepdims=True)
    by_score = powers * (by_power - mean) * values.shape[-1] ** -0.5
    (by_meeting,) = pull(by_score.astype(values.dtype))
    return by_meeting, by_values, None, None


dot_product_attention_chunk.defvjp(_forward, _backward)


def _dropped(x, draw, num_queries):
    if draw is None:
        return x
    rows, heads, _, keys = x.shape
    return apply_dropout_mask(x, draw, x.shape, (rows, heads, num_queries, keys))


def _inverse(total):
    return jnp.where(total == 0, 0, 1 / total)
