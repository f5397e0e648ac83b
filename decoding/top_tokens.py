"""The best tokens of a large vocabulary without sorting it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

WIDTH = 64  # tokens of a block


def top_tokens(
    scores: Float[Array, "*B V"], count: int
) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
    """The `count` best scores and their tokens, best first, of equals the first.

    What `jax.lax.top_k` gives, sooner. The K best stand in the K blocks whose best
    is best (of equal blocks, in the first), so only these need to be searched.
    """
    size = scores.shape[-1]
    blocks = -(-size // WIDTH)
    if blocks < 2 * count:
        return tuple(jax.lax.top_k(scores, count))
    room = [(0, 0)] * (scores.ndim - 1) + [(0, blocks * WIDTH - size)]
    parts = jnp.pad(scores, room, constant_values=-jnp.inf)
    parts = parts.reshape(*scores.shape[:-1], blocks, WIDTH)
    _, chosen = jax.lax.top_k(parts.max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # so that of equal scores the first stays first
    few = jnp.take_along_axis(parts, chosen[..., None], axis=-2)
    best, places = jax.lax.top_k(few.reshape(*scores.shape[:-1], -1), count)
    block = jnp.take_along_axis(chosen, places // WIDTH, axis=-1)
    return best, jnp.minimum(block * WIDTH + places % WIDTH, size - 1)
