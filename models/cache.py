"""What generation remembers of its prefix.

What all hypotheses of a row share (a memory, a prompt) stands once a row and is
only read; what each has written since stands in caches of [B, N, H, L, Dh]: N
hypotheses a sentence, L slots, all rows filled up to the same slot.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.precision import DType

LayerCache = tuple[Float[Array, "B N H L Dh"], Float[Array, "B N H L Dh"]]
LayerPast = tuple[Float[Array, "B H C Dh"], Float[Array, "B H C Dh"]]


class Past(NamedTuple):
    """What stands before the first token that is generated.

    Attributes:
      kept: a layer's keys and values each.
      seen: which of their C slots hold something.
      places: of the first token that is generated, a row.
    """

    kept: tuple[LayerPast, ...]
    seen: Bool[Array, "B C"]
    places: Int[Array, "B"]

    @property
    def slots(self) -> int:
        """C."""
        return self.seen.shape[1]


class View(NamedTuple):
    """Who a token sees of C slots before and L of its hypothesis, and how far.

    Attributes:
      distances: the projected distances of the slots, where they matter.
    """

    mask: Bool[Array, "B 1 S"]
    places: Int[Array, "B 1"]
    distances: Float[Array, "S H Dh"] | None


class State(NamedTuple):
    """A layer's cache each, and the next free slot of all rows."""

    caches: tuple[LayerCache, ...]
    slot: Int[Array, ""]


def no_past(
    batch_size: int,
    layers: int,
    heads: int,
    head_width: int,
    dtype: DType = jnp.float32,
) -> Past:
    """Where nothing stands before."""
    empty = jnp.zeros((batch_size, heads, 0, head_width), dtype)
    seen = jnp.zeros((batch_size, 0), bool)
    return Past(((empty, empty),) * layers, seen, jnp.zeros(batch_size, jnp.int32))


def empty_state(past: Past, max_steps: int) -> State:
    """One hypothesis a row that has written nothing yet, with room to."""
    keys = past.kept[0][0]
    rows, heads, _, head_width = keys.shape
    empty = jnp.zeros((rows, 1, heads, max_steps, head_width), keys.dtype)
    return State(((empty, empty),) * len(past.kept), jnp.zeros((), jnp.int32))


def write_cache(
    cache: LayerCache,
    new: tuple[Float[Array, "B H N Dh"], Float[Array, "B H N Dh"]],
    slot: Int[Array, ""],
) -> LayerCache:
    """Puts one token's key and value into a slot."""

    def put(slots, one):
        one = jnp.swapaxes(one, 1, 2)
        return jax.lax.dynamic_update_index_in_dim(slots, one, slot, axis=3)

    return put(cache[0], new[0]), put(cache[1], new[1])


def views(
    past: Past, state: State, distances: tuple, window: Int[Array, ""]
) -> tuple[View, ...]:
    """What the next token of each hypothesis sees, a layer.

    Args:
      distances: a layer's projected distances C + L - 1 to 0 each, or None.
      window: keys at this distance or farther are not seen.
    """
    num_before, max_steps = past.slots, state.caches[0][0].shape[3]
    total = num_before + max_steps
    away = num_before + state.slot - jnp.arange(total)
    mask = (away >= 0) & (away < window)
    seen = jnp.pad(past.seen, ((0, 0), (0, max_steps)), constant_values=True)
    mask = (mask & seen)[:, None]
    places = (past.places + state.slot)[:, None]

    def falling(projected):
        if projected is None:
            return None
        later = jnp.pad(projected, ((0, max_steps - 1), (0, 0), (0, 0)))
        start = max_steps - 1 - state.slot
        return jax.lax.dynamic_slice_in_dim(later, start, total)

    return tuple(View(mask, places, falling(projected)) for projected in distances)
