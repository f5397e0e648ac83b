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

    Keys in excess of the queries are a memory that every query attends to.
    """
    return _relative_positions(num_queries, num_keys) >= 0


def sliding_window_mask(
    num_queries: int, num_keys: int, window: int
) -> Bool[Array, "1 T S"]:
    """Returns the mask of keys less than `window` before their query.

    Dai et al. (2019) call it `same_length`.
    """
    return _relative_positions(num_queries, num_keys) < window


def _relative_positions(num_queries, num_keys):
    """Positions of the last T of S keys minus those of all keys, [1, T, S]."""
    queries = jnp.arange(num_keys - num_queries, num_keys)[:, None]
    return (queries - jnp.arange(num_keys))[None]


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
    return _sort_rows(tokens, mask, mask)


def pad_right(
    tokens: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Moves padding after the tokens of each row, wherever it is."""
    return _sort_rows(tokens, mask, ~mask)


def _sort_rows(tokens, mask, key):
    order = jnp.argsort(key, axis=1, stable=True)
    return tuple(jnp.take_along_axis(rows, order, axis=1) for rows in (tokens, mask))


def masked_softmax(
    logits: Float[Array, "... S"], mask: Bool[Array, "... #S"]
) -> Float[Array, "... S"]:
    """Computes a softmax over unmasked keys in float32; zeros where all are masked."""
    weights = jax.nn.softmax(upcast_to_f32(logits), axis=-1, where=mask)
    return weights.astype(logits.dtype)
