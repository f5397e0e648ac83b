"""What happens to a carry between the batches of a task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def reset_carry(carry: PyTree, initial: PyTree, reset: Bool[Array, "B"]) -> PyTree:
    """The initial carry in the rows that begin something new."""

    def choose(old, new):
        if not old.ndim:
            return old
        return jnp.where(reset.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, carry, initial)
