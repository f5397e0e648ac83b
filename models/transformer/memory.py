"""The memory of segment recurrence (Dai et al. 2019, section 3.2).

In training the last M inputs of each layer, oldest first and aligned to the
right: while a memory fills, its first slots are empty, and `filled` says how many
are not. In evaluation, where parameters stay, what attention makes of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from models.common.dtypes import DType


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


def check_length(length: int) -> None:
    """Raises ValueError for a length no memory has."""
    if length < 0:
        raise ValueError(f"memory_length={length}: a memory has 0 slots or more")


def empty_memory(
    batch_size: int, length: int, layers: int, width: int, dtype: DType = jnp.float32
) -> Memory:
    """A memory of nothing. Raises ValueError for a negative length."""
    check_length(length)
    slots = jnp.zeros((batch_size, length, width), dtype)
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


@struct.dataclass
class ProjectedMemory:
    """A memory for evaluation: keys and values, for one set of parameters.

    Slots are a ring: a segment overwrites the oldest, so that nothing moves and
    nothing is projected twice. There is room for the memory and a segment.

    Attributes:
      kept: a layer's keys and values each, [B, H, R, Dh].
      filled: how many of the M slots before the next segment hold something, [B].
      written: tokens so far, rank 0; the next belongs in slot written % R.
      length: M.
    """

    kept: PyTree
    filled: PyTree
    written: PyTree
    length: int = struct.field(pytree_node=False)

    @property
    def slots(self) -> int:
        """R."""
        return self.kept[0][0].shape[2]

    def extended(self, kept, num_new: int) -> "ProjectedMemory":
        """After a segment of `num_new` tokens whose keys and values are in `kept`."""
        filled = jnp.minimum(self.filled + num_new, self.length)
        return self.replace(kept=kept, filled=filled, written=self.written + num_new)

    def in_order(self) -> tuple:
        """Keys and values of the M slots, oldest first."""

        def turn(slots):
            turned = jnp.roll(slots, -(self.written % self.slots), axis=2)
            return turned[:, :, self.slots - self.length :]

        return jax.tree.map(turn, self.kept)


def empty_projected_memory(
    batch_size: int,
    length: int,
    segment_length: int,
    layers: int,
    heads: int,
    head_dim: int,
    dtype: DType = jnp.float32,
) -> ProjectedMemory:
    """A memory of nothing, for segments of at most `segment_length` tokens."""
    check_length(length)
    shape = (batch_size, heads, length + segment_length, head_dim)
    kept = tuple(
        (jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(layers)
    )
    filled = jnp.zeros(batch_size, jnp.int32)
    return ProjectedMemory(kept, filled, jnp.zeros((), jnp.int32), length)


def write_slots(
    slots: Float[Array, "B H R Dh"],
    new: Float[Array, "B H T Dh"],
    written: Int[Array, ""],
) -> Float[Array, "B H R Dh"]:
    """Puts a segment's keys or values into a ring."""
    num_slots, length = slots.shape[2], new.shape[2]
    places = (written + jnp.arange(length)) % num_slots
    return slots.at[:, :, places].set(
        new, mode="promise_in_bounds", unique_indices=True
    )


class Memories(NamedTuple):
    """What both sides of an encoder-decoder remember of the sentences before."""

    encoder: Memory | None
    decoder: Memory | None
