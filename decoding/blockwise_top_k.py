"""The best tokens of a large vocabulary without sorting it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

WIDTH = 64  # tokens of a block


def blockwise_top_k(
    scores: Float[Array, "*B V"],
    count: int,
    allowed: Bool[Array, "*#B V"] | None = None,
) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
    """The `count` best scores and their tokens, best first, of equals the first.

    What `jax.lax.top_k` gives, sooner. The K best stand in the K blocks whose best
    is best (of equal blocks, in the first), so only these need to be searched.

    Args:
      allowed: others score -inf; of a large vocabulary no scores are written anew.
    """
    size = scores.shape[-1]
    blocks = -(-size // WIDTH)
    if blocks < 2 * count:
        return tuple(jax.lax.top_k(_open(scores, allowed), count))
    parts = _in_blocks(scores, blocks, -jnp.inf)
    if allowed is not None:
        allowed = _in_blocks(allowed, blocks, False)
    _, chosen = jax.lax.top_k(_open(parts, allowed).max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # so that of equal scores the first stays first
    few = jnp.take_along_axis(parts, chosen[..., None], axis=-2)
    if allowed is not None:
        allowed = jnp.take_along_axis(allowed, chosen[..., None], axis=-2)
    few = _open(few, allowed).reshape(*scores.shape[:-1], -1)
    best, places = jax.lax.top_k(few, count)
    block = jnp.take_along_axis(chosen, places // WIDTH, axis=-1)
    return best, jnp.minimum(block * WIDTH + places % WIDTH, size - 1)


def _in_blocks(x, blocks, filler):
    room = [(0, 0)] * (x.ndim - 1) + [(0, blocks * WIDTH - x.shape[-1])]
    parts = jnp.pad(x, room, constant_values=filler)
    return parts.reshape(*x.shape[:-1], blocks, WIDTH)


def _open(scores, allowed):
    return scores if allowed is None else jnp.where(allowed, scores, -jnp.inf)
