"""Boolean attention masks: True where a query attends to a key.

Masks broadcast to [B, T, S] and combine with `&`; `masked_softmax` applies them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dtypes import upcast_to_f32

NO_WINDOW = 2**30  # a window wider than any text


def causal_mask(num_queries: int, num_keys: int) -> Bool[Array, "1 T S"]:
    """Returns the causal mask of queries that are the last of the keys.

    The last query attends to all keys, and each query before it to one key less; keys
    in excess of the queries are a memory that every query attends to.
    """
    offset = num_keys - num_queries
    queries = jnp.arange(num_queries)[:, None]
    return (jnp.arange(num_keys)[None] <= queries + offset)[None]


def sliding_window_mask(
    num_queries: int, num_keys: int, window: int
) -> Bool[Array, "1 T S"]:
    """Returns the mask of keys less than `window` before their query.

    Dai et al. (2019) call it `same_length`.
    """
    offset = num_keys - num_queries
    queries = jnp.arange(num_queries)[:, None] + offset
    return (queries - jnp.arange(num_keys)[None] < window)[None]


def valid_memory_mask(
    valid_length: Int[Array, "B"], num_slots: int
) -> Bool[Array, "B 1 S"]:
    """Returns the mask of the last `valid_length` slots, those with a content."""
    return (jnp.arange(num_slots)[None] >= num_slots - valid_length[:, None])[:, None]


def pad_left(
    tokens: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Moves padding before the tokens of each row, wherever it is.

    Then all prompts of a batch end in the same slot, and slots differ as positions do.
    """
    order = jnp.argsort(mask, axis=1, stable=True)
    return (
        jnp.take_along_axis(tokens, order, axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )


def pad_right(
    tokens: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Moves padding after the tokens of each row, wherever it is."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    return (
        jnp.take_along_axis(tokens, order, axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )


def segment_mask(
    queries: Int[Array, "B T"], keys: Int[Array, "B S"]
) -> Bool[Array, "B T S"]:
    """Returns the mask of keys in the query's segment, for rows of several segments.

    Args:
      queries, keys: index of the segment of each token.
    """
    return queries[:, :, None] == keys[:, None]


def masked_softmax(
    logits: Float[Array, "... S"], mask: Bool[Array, "... #S"]
) -> Float[Array, "... S"]:
    """Computes a softmax over unmasked keys in float32; zeros where all are masked."""
    weights = jax.nn.softmax(upcast_to_f32(logits), axis=-1, where=mask)
    return weights.astype(logits.dtype)
