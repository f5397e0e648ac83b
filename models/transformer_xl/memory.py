"""Memory of segment recurrence (Dai et al. 2019, section 3.2).

Training stores the last M inputs of each layer (`Memory`). Evaluation, where the
parameters are fixed, stores the keys and values projected from them (`KVMemory`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from models.transformer.config import Config


class Memory(NamedTuple):
    """The last M inputs of each layer, oldest first and aligned to the right.

    Attributes:
      hidden: inputs of each layer, [B, M, D]; no gradient flows into them.
      valid_length: number of slots in use, the last ones, [B].
    """

    hidden: tuple[Float[Array, "B M D"], ...]
    valid_length: Int[Array, "B"]

    @property
    def length(self) -> int:
        """Number of slots (M)."""
        return self.hidden[0].shape[1]

    def append(
        self, inputs: tuple[Float[Array, "B T D"], ...], num_new: Int[Array, "B"]
    ) -> "Memory":
        """Appends a segment's layer inputs and keeps the last M.

        Args:
          num_new: number of tokens in each row; padding after them is dropped.
        """

        def keep_last(old, new):
            both = jnp.concatenate([old, new], axis=1)
            slots = num_new[:, None] + jnp.arange(self.length)
            return jnp.take_along_axis(both, slots[:, :, None], axis=1)

        hidden = jax.tree.map(keep_last, self.hidden, inputs)
        valid_length = jnp.minimum(self.valid_length + num_new, self.length)
        return Memory(jax.lax.stop_gradient(hidden), valid_length)


class Seq2SeqMemory(NamedTuple):
    """Memories of both sides of an encoder-decoder."""

    encoder: Memory
    decoder: Memory


def init_memory(config: Config, batch_size: int, length: int) -> Memory:
    """Returns an empty memory of M slots."""
    slots = jnp.zeros((batch_size, length, config.width), config.compute_dtype)
    return Memory((slots,) * config.layers, jnp.zeros(batch_size, jnp.int32))


@struct.dataclass
class KVMemory:
    """Ring buffer of each layer's keys and values, for evaluation.

    The R = M + T slots hold the memory and one segment. A segment overwrites the
    oldest slots, so nothing is moved or projected twice. The content is valid for
    one set of parameters.

    Attributes:
      kv: keys and values of each layer, [B, H, R, K].
      valid_length: number of the M slots before the next segment in use, [B].
      next_position: position of the next token, which goes to slot next_position % R.
      length: memory length (M).
    """

    kv: PyTree
    valid_length: PyTree
    next_position: PyTree
    length: int = struct.field(pytree_node=False)

    @property
    def num_slots(self) -> int:
        """Number of slots of the ring (R)."""
        return self.kv[0][0].shape[2]

    def append(self, kv: PyTree, num_new: int) -> "KVMemory":
        """Returns the memory after `num_new` tokens that `kv` already contains."""
        return self.replace(
            kv=kv,
            valid_length=jnp.minimum(self.valid_length + num_new, self.length),
            next_position=self.next_position + num_new,
        )

    def unroll(self) -> PyTree:
        """Returns the keys and values of the last M slots, oldest first."""

        def in_order(slots):
            oldest_first = jnp.roll(
                slots, -(self.next_position % self.num_slots), axis=2
            )
            return oldest_first[:, :, self.num_slots - self.length :]

        return jax.tree.map(in_order, self.kv)


def init_kv_memory(
    config: Config, batch_size: int, length: int, segment_length: int
) -> KVMemory:
    """Returns an empty ring buffer for segments of at most `segment_length` tokens."""
    slots = length + segment_length
    shape = (batch_size, config.heads, slots, config.resolved_head_dim)
    zeros = functools.partial(jnp.zeros, shape, config.compute_dtype)
    kv = tuple((zeros(), zeros()) for _ in range(config.layers))
    valid_length = jnp.zeros(batch_size, jnp.int32)
    return KVMemory(kv, valid_length, jnp.zeros((), jnp.int32), length)
