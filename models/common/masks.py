"""Who may look at whom: boolean masks, True where a query may attend a key.

`masked_softmax` is what they are for.

Every mask broadcasts to [B, T, S]; masks combine with `&`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dtypes import upcast_to_f32

NO_WINDOW = 2**30  # a window wider than any text


def causal_mask(num_queries: int, num_keys: int) -> Bool[Array, "1 T S"]:
    """The last query sees the last key, each query before it one key less.

    With as many keys as queries this is the usual lower triangle; more keys
    stand for a memory before the segment, which every query sees whole.
    """
    behind = num_keys - num_queries
    queries = jnp.arange(num_queries)[:, None]
    return (jnp.arange(num_keys)[None] <= queries + behind)[None]


def sliding_window_mask(
    num_queries: int, num_keys: int, window: int
) -> Bool[Array, "1 T S"]:
    """Keys less than `window` before their query (Dai et al.'s `same_length`)."""
    behind = num_keys - num_queries
    queries = jnp.arange(num_queries)[:, None] + behind
    return (queries - jnp.arange(num_keys)[None] < window)[None]


def valid_memory_mask(filled: Int[Array, "B"], num_slots: int) -> Bool[Array, "B 1 S"]:
    """The `filled` last slots of a memory that fills from the right."""
    return (jnp.arange(num_slots)[None] >= num_slots - filled[:, None])[:, None]


def pad_left(
    tokens: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Moves each row's padding, wherever it stands, before its tokens.

    Then the rows of a batch of prompts end together, and the distance between
    two slots is the distance between two tokens.
    """
    order = jnp.argsort(mask, axis=1, stable=True)
    return (
        jnp.take_along_axis(tokens, order, axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )


def pad_right(
    tokens: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Moves each row's padding, wherever it stands, after its tokens."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    return (
        jnp.take_along_axis(tokens, order, axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )


def segment_mask(
    queries: Int[Array, "B T"], keys: Int[Array, "B S"]
) -> Bool[Array, "B T S"]:
    """Keys of the query's own segment, where one row holds several texts.

    Args:
      queries, keys: the number of the text that each token belongs to.
    """
    return queries[:, :, None] == keys[:, None]


def masked_softmax(
    scores: Float[Array, "... S"], mask: Bool[Array, "... #S"]
) -> Float[Array, "... S"]:
    """Softmax over the keys a mask leaves, in float32; zeros where it leaves none."""
    exact = jax.nn.softmax(upcast_to_f32(scores), axis=-1, where=mask)
    return exact.astype(scores.dtype)
