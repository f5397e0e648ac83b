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
from models.common.dropout import Draw, Keys, thinned
from models.common.dtypes import Number, widened
from models.common.matmul import met, met_distances, over_queries


class Meeting(NamedTuple):
    """Queries and the keys that they meet.

    Attributes:
      content: queries for contents.
      position: queries for distances; None where these do not matter.
      distances: what stands for each, in the order of `relative_shift`.
    """

    content: Float[Array, "B H T Dh"]
    keys: Float[Array, "B H S Dh"]
    position: Float[Array, "B H T Dh"] | None = None
    distances: Float[Array, "C H Dh"] | None = None


def scores_of(
    meeting: Meeting, oldest: Int[Array, ""] | None = None
) -> Float[Array, "B H T S"]:
    """Scores of every query with every key, not yet scaled.

    Args:
      oldest: slot of the oldest key, where slots are a ring; else the first.
    """
    content, keys, position, distances = meeting
    scores = met(content, keys)
    if distances is None:
        return scores
    by_distance = jnp.swapaxes(met_distances(position, distances), 0, 1)
    by_distance = relative_shift(by_distance, keys.shape[2])
    if oldest is not None:
        by_distance = jnp.roll(by_distance, oldest, axis=-1)
    return scores + by_distance


def powers_of(
    scores: Float[Array, "B H T S"], mask: Bool[Array, "#B 1 #T S"]
) -> tuple[Float[Array, "B H T S"], Float[Array, "B H T 1"]]:
    """e of scaled scores, 0 where a query may not look, and l."""
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    largest = scores.max(axis=-1, keepdims=True)
    powers = jnp.where(mask, jnp.exp(scores - largest), 0)
    return powers, powers.sum(axis=-1, keepdims=True)


def attended(
    meeting: Meeting,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout: Number,
) -> Float[Array, "B H T Dh"]:
    """softmax(scores / sqrt(Dh)) V, zeros for a query that may look nowhere.

    Args:
      dropout_keys: of the dropout of weights; None: no weight is left out.
    """
    draw = draw_of(dropout_keys, dropout)
    return attended_by_some(meeting, values, mask, draw, meeting.content.shape[2])


def draw_of(dropout_keys: Keys | None, dropout: Number) -> Draw | None:
    """Of the dropout of weights, or None."""
    return None if dropout_keys is None else Draw.of(dropout_keys, dropout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attended_by_some(
    meeting: Meeting,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    draw: Draw | None,
    num_queries: int,
) -> Float[Array, "B H T Dh"]:
    """The same, of T queries out of `num_queries`, for whose weights the draw is."""
    return _forward(meeting, values, mask, draw, num_queries)[0]


def _forward(meeting, values, mask, draw, num_queries):
    scores, pull = jax.vjp(scores_of, meeting)
    powers, total = powers_of(widened(scores * values.shape[-1] ** -0.5), mask)
    powers = powers.astype(values.dtype)
    seen = _dropped(powers, draw, num_queries)
    found = jnp.einsum("BHTS,BHSK->BHTK", seen, values)
    found = found * _inverse(total).astype(values.dtype)
    return found, (pull, powers, total, values, found, draw)


def _backward(num_queries, saved, gradient):
    pull, powers, total, values, found, draw = saved
    gradient = gradient * _inverse(total).astype(values.dtype)
    seen = _dropped(powers, draw, num_queries)
    by_values = over_queries(gradient, seen)
    by_power = jnp.einsum("BHTK,BHSK->BHTS", gradient, values)
    by_power = widened(_dropped(by_power, draw, num_queries))
    mean = widened(gradient * found).sum(axis=-1, keepdims=True)
    by_score = powers * (by_power - mean) * values.shape[-1] ** -0.5
    (by_meeting,) = pull(by_score.astype(values.dtype))
    return by_meeting, by_values, None, None


attended_by_some.defvjp(_forward, _backward)


def _dropped(x, draw, num_queries):
    if draw is None:
        return x
    rows, heads, _, keys = x.shape
    return thinned(x, draw, x.shape, (rows, heads, num_queries, keys))


def _inverse(total):
    return jnp.where(total == 0, 0, 1 / total)
