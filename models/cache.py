"""The key/value cache of a decoder: what generation remembers of its prefix.

A layer's cache is a pair (keys, values) of shape [B, K, L, H, Dh]: K hypotheses
a sentence, L slots, all rows filled up to the same slot.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LayerCache = tuple[Float[Array, "B K L H Dh"], Float[Array, "B K L H Dh"]]


def make_cache(
    projected: tuple[Float[Array, "B P H Dh"], Float[Array, "B P H Dh"]],
    max_steps: int,
) -> LayerCache:
    """One hypothesis whose first P slots are filled, with room for `max_steps`."""
    room = ((0, 0), (0, 0), (0, max_steps), (0, 0), (0, 0))
    keys, values = projected
    return jnp.pad(keys[:, None], room), jnp.pad(values[:, None], room)


def write_cache(
    cache: LayerCache,
    projected: tuple[Float[Array, "B K H Dh"], Float[Array, "B K H Dh"]],
    slot: Int[Array, ""],
) -> LayerCache:
    """Puts one token's key and value into a slot."""

    def put(slots, new):
        return jax.lax.dynamic_update_index_in_dim(slots, new, slot, axis=2)

    return put(cache[0], projected[0]), put(cache[1], projected[1])


def merge_hypotheses(x: Array) -> Array:
    """[B, K, ...] -> [B K, ...]: each hypothesis a row of its own."""
    return x.reshape(-1, *x.shape[2:])


def visible_slots(
    prompt_mask: Bool[Array, "B P"], num_slots: int, slot: Int[Array, ""]
) -> Bool[Array, "B 1 L"]:
    """Slots up to `slot`, but for the padding of the prompt in the first P."""
    room = num_slots - prompt_mask.shape[1]
    used = jnp.pad(prompt_mask, ((0, 0), (0, room)), constant_values=True)
    return (used & (jnp.arange(num_slots) <= slot))[:, None]
