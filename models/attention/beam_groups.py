"""How hypotheses stand by rows and by families, as kv_cache.py describes."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def split_groups(
    x: Float[Array, "B H N _"], num_families: int
) -> Float[Array, "F H G _"]:
    """Those of each of B rows as those of each of F families, in the same order."""
    rows, heads, _, size = x.shape
    if num_families == rows:
        return x
    parts = x.reshape(rows, heads, num_families // rows, -1, size)
    return jnp.swapaxes(parts, 1, 2).reshape(num_families, heads, -1, size)


def merge_groups(x: Float[Array, "F H G _"], num_rows: int) -> Float[Array, "B H N _"]:
    """The other way round."""
    families, heads, _, size = x.shape
    if families == num_rows:
        return x
    parts = x.reshape(num_rows, families // num_rows, heads, -1, size)
    return jnp.swapaxes(parts, 1, 2).reshape(num_rows, heads, -1, size)
