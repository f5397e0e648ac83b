"""Attention by so many queries at a time: no array has the size of all scores.

The backward pass makes each block's weights again instead of keeping them (Rabe and
Staats 2021, "Self-attention Does Not Need O(n^2) Memory"; Dao et al. 2022), and adds
up in float32 what blocks give to keys, values and distances.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.dot_product import (
    AttentionInputs,
    dot_product_attention_chunk,
    make_dropout_mask,
)
from models.common.dropout import DropoutMask, Keys, strides
from models.common.dtypes import Scalar, upcast_to_f32

CHUNK_QUERIES = 128  # queries, at most


class SharedInputs(NamedTuple):
    """What all blocks meet.

    Attributes:
      distances: a column for each query and key, in the order of `relative_shift`.
      draw: of the weights of all queries.
    """

    keys: Float[Array, "B H S Dh"]
    values: Float[Array, "B H S Dh"]
    distances: Float[Array, "C H Dh"] | None
    draw: DropoutMask | None


class QueryChunk(NamedTuple):
    """Some queries; or all blocks of them, with one axis more in front.

    Attributes:
      content: queries for contents.
      position: those for distances; None where these do not matter.
      mask: who of them sees whom; an axis of 1 stands for all alike.
      first: which query is the block's first, below 0 where it is filled up.
    """

    content: Float[Array, "... B H Q Dh"]
    position: Float[Array, "... B H Q Dh"] | None
    mask: Bool[Array, "... _ 1 _ S"]
    first: Int[Array, "..."]


def blockwise_attention(
    inputs: AttentionInputs,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout: Scalar,
) -> Float[Array, "B H T Dh"]:
    """What `attended` finds, with the same dropout; only sums are rounded otherwise."""
    num_queries, num_keys = inputs.query.shape[2], values.shape[2]
    num_blocks = -(-num_queries // CHUNK_QUERIES)
    size = -(-num_queries // num_blocks)
    spare = num_blocks * size - num_queries

    def split(x):
        """Blocks first; rows of zeros before the first query fill them up."""
        if x is None or x.shape[2] == 1 < size:
            return x if x is None else jnp.broadcast_to(x, (num_blocks, *x.shape))
        filled = jnp.pad(x, ((0, 0), (0, 0), (spare, 0), (0, 0)))
        apart = filled.reshape(*x.shape[:2], num_blocks, size, x.shape[3])
        return jnp.moveaxis(apart, 2, 0)

    distances = inputs.relative_keys
    if distances is not None:
        columns = num_queries + spare + num_keys - 1
        distances = jnp.pad(distances, ((0, columns), (0, 0), (0, 0)))[:columns]
    shared = SharedInputs(
        inputs.key, values, distances, make_dropout_mask(dropout_keys, dropout)
    )
    first = jnp.arange(num_blocks) * size - spare
    blocks = QueryChunk(
        split(inputs.query), split(inputs.position_query), split(mask), first
    )
    found = jnp.moveaxis(_attended(blocks, shared, num_queries), 0, 2)
    return found.reshape(*values.shape[:2], -1, values.shape[3])[:, :, spare:]


def _one(
    block: QueryChunk, shared: SharedInputs, num_queries: int
) -> Float[Array, "B H Q Dh"]:
    """What one block finds."""
    (rows, heads, size, _), num_keys = block.content.shape, shared.keys.shape[2]
    distances, draw = shared.distances, shared.draw
    if distances is not None:
        nearest = num_queries - size - block.first
        distances = jax.lax.dynamic_slice_in_dim(
            distances, nearest, num_keys + size - 1
        )
    if draw is not None:
        stride = strides((rows, heads, num_queries, num_keys))[2]
        draw = draw.offset_by(block.first.astype(jnp.uint32) * jnp.uint32(stride))
    inputs = AttentionInputs(block.content, shared.keys, block.position, distances)
    return dot_product_attention_chunk(
        inputs, shared.values, block.mask, draw, num_queries
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attended(blocks, shared, num_queries):
    return jax.lax.map(lambda block: _one(block, shared, num_queries), blocks)


def _forward(blocks, shared, num_queries):
    return _attended(blocks, shared, num_queries), (blocks, shared)


def _backward(num_queries, saved, gradients):
    blocks, shared = saved

    def turn(total, inputs):
        block, gradient = inputs

        def one(content, position, *meets):
            asked = block._replace(content=content, position=position)
            return _one(asked, SharedInputs(*meets, shared.draw), num_queries)

        _, pull = jax.vjp(one, block.content, block.position, *shared[:3])
        *by_queries, by_keys, by_values, by_distances = pull(gradient)
        found = (by_keys, by_values, by_distances)
        return jax.tree.map(lambda a, b: a + upcast_to_f32(b), total, found), by_queries

    nothing = jax.tree.map(lambda x: upcast_to_f32(jnp.zeros_like(x)), shared[:3])
    total, (content, position) = jax.lax.scan(turn, nothing, (blocks, gradients))
    total = jax.tree.map(lambda x, like: x.astype(like.dtype), total, shared[:3])
    return QueryChunk(content, position, None, None), SharedInputs(*total, None)


_attended.defvjp(_forward, _backward)
