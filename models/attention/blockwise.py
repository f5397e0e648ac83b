"""Attention in chunks of queries, which never stores the logits of all queries.

The backward pass recomputes the weights of each chunk instead of storing them (Rabe
and Staats 2021, "Self-attention Does Not Need O(n^2) Memory"; Dao et al. 2022), and
sums the gradients of keys, values and relative keys over chunks in float32.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.dot_product import AttentionInputs, xla_attention
from models.common.dropout import DropoutMask, strides
from models.common.dtypes import upcast_to_f32

CHUNK_QUERIES = 128  # maximum


class QueryChunk(NamedTuple):
    """Consecutive queries; or all chunks of them, with one more axis in front.

    Attributes:
      query: queries of the content.
      position_query: queries of relative positions; None without these.
      mask: keys that each query attends to; axes of 1 broadcast.
      first: index of the first query, negative in a padded chunk.
    """

    query: Float[Array, "... B H Q K"]
    position_query: Float[Array, "... B H Q K"] | None
    mask: Bool[Array, "... _ 1 _ S"]
    first: Int[Array, "..."]


def blockwise_attention(
    inputs: AttentionInputs,
    mask: Bool[Array, "#B 1 #T S"],
    dropout: DropoutMask | None = None,
) -> Float[Array, "B H T K"]:
    """Computes `xla_attention`, up to rounding, with the same dropout mask."""
    num_queries, num_keys = inputs.query.shape[2], inputs.key.shape[2]
    num_chunks = -(-num_queries // CHUNK_QUERIES)
    size = -(-num_queries // num_chunks)
    padding = num_chunks * size - num_queries

    def split(x):
        """Moves chunks to the first axis; zeros before the first query pad them."""
        if x is None or x.shape[2] == 1 < size:
            return x if x is None else jnp.broadcast_to(x, (num_chunks, *x.shape))
        padded = jnp.pad(x, ((0, 0), (0, 0), (padding, 0), (0, 0)))
        chunks = padded.reshape(*x.shape[:2], num_chunks, size, x.shape[3])
        return jnp.moveaxis(chunks, 2, 0)

    relative_keys = inputs.relative_keys
    if relative_keys is not None:  # a column for each query and key
        columns = num_queries + padding + num_keys - 1
        relative_keys = jnp.pad(relative_keys, ((0, columns), (0, 0), (0, 0)))[:columns]
    first = jnp.arange(num_chunks) * size - padding
    queries = map(split, (inputs.query, inputs.position_query, mask))
    shared = inputs._replace(
        query=None, position_query=None, relative_keys=relative_keys
    )
    output = _attend(QueryChunk(*queries, first), shared, dropout, num_queries)
    output = jnp.moveaxis(output, 0, 2)
    return output.reshape(*output.shape[:2], -1, output.shape[-1])[:, :, padding:]


def _attend_chunk(chunk, shared, dropout, num_queries):
    (batch_size, heads, size, _), num_keys = chunk.query.shape, shared.key.shape[2]
    relative_keys = shared.relative_keys
    if relative_keys is not None:
        nearest = num_queries - size - chunk.first
        relative_keys = jax.lax.dynamic_slice_in_dim(
            relative_keys, nearest, num_keys + size - 1
        )
    if dropout is not None:
        stride = strides((batch_size, heads, num_queries, num_keys))[2]
        dropout = dropout.offset_by(chunk.first.astype(jnp.uint32) * jnp.uint32(stride))
    inputs = AttentionInputs(
        chunk.query, shared.key, shared.value, chunk.position_query, relative_keys
    )
    return xla_attention(inputs, chunk.mask, dropout, num_queries)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(chunks, shared, dropout, num_queries):
    attend = functools.partial(
        _attend_chunk, shared=shared, dropout=dropout, num_queries=num_queries
    )
    return jax.lax.map(attend, chunks)


def _forward(chunks, shared, dropout, num_queries):
    return _attend(chunks, shared, dropout, num_queries), (chunks, shared, dropout)


def _backward(num_queries, saved, gradients):
    chunks, shared, dropout = saved

    def add_chunk(total, scanned):
        chunk, gradient = scanned

        def attend(query, position_query, shared):
            replaced = chunk._replace(query=query, position_query=position_query)
            return _attend_chunk(replaced, shared, dropout, num_queries)

        _, pull = jax.vjp(attend, chunk.query, chunk.position_query, shared)
        *d_queries, d_shared = pull(gradient)
        total = jax.tree.map(lambda a, b: a + upcast_to_f32(b), total, d_shared)
        return total, d_queries

    zeros = jax.tree.map(lambda x: upcast_to_f32(jnp.zeros_like(x)), shared)
    total, d_queries = jax.lax.scan(add_chunk, zeros, (chunks, gradients))
    total = jax.tree.map(lambda x, like: x.astype(like.dtype), total, shared)
    return QueryChunk(*d_queries, None, None), total, None


_attend.defvjp(_forward, _backward)
