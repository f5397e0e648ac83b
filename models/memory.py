"""The memory of segment recurrence (Dai et al. 2019, section 3.2).

The last M inputs of each layer, oldest first and aligned to the right: while a
memory fills, its first slots are empty, and `filled` says how many are not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Memory(NamedTuple):
    """What a stack of layers remembers of each row.

    Attributes:
      hidden: a layer's inputs each, [B, M, D]; no gradient flows into them.
      filled: how many of the M slots hold something, [B].
    """

    hidden: tuple[Float[Array, "B M D"], ...]
    filled: Int[Array, "B"]

    @property
    def length(self) -> int:
        """M."""
        return self.hidden[0].shape[1]


def empty_memory(batch_size: int, length: int, layers: int, width: int) -> Memory:
    """A memory of nothing. Raises ValueError for a negative length."""
    if length < 0:
        raise ValueError(f"memory_length={length}: a memory has 0 slots or more")
    slots = jnp.zeros((batch_size, length, width), jnp.float32)
    return Memory((slots,) * layers, jnp.zeros(batch_size, jnp.int32))


def extend_memory(
    memory: Memory,
    inputs: tuple[Float[Array, "B T D"], ...],
    num_new: Int[Array, "B"],
) -> Memory:
    """The last M of what was remembered and the `num_new` first new inputs.

    What stands after a row's `num_new` inputs is padding and is not kept.
    """

    def last(old, new):
        both = jnp.concatenate([old, new], axis=1)
        slots = num_new[:, None] + jnp.arange(memory.length)
        return jnp.take_along_axis(both, slots[:, :, None], axis=1)

    hidden = jax.tree.map(last, memory.hidden, tuple(inputs))
    filled = jnp.minimum(memory.filled + num_new, memory.length)
    return Memory(jax.lax.stop_gradient(hidden), filled)
