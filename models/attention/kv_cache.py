"""What generation remembers of its prefix.

What all hypotheses of a row share (a memory, a prompt) stands once a row and is only
read. What they have written since stands in caches that belong to families: G
hypotheses of a row that may go on from one another, each with a slot of its own at
each of L steps. Whose slots are a hypothesis's past is kept apart, so that a search
that goes on with other hypotheses moves no keys and no values. The price: a member's
query meets the slots of all its family (`kv_blocks.py`), of which the mask leaves
it one a step.

Keys stand turned here, as CPUs multiply them with few queries soonest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from models.attention.decode_attention import StepMask
from models.attention.kv_blocks import (
    KVBlocks,
    TransposedKV,
    active_block,
    init_blocks,
    num_slots,
    tile_beams,
)
from models.attention.multi_head import KV
from models.common.dtypes import DType


class PrefixCache(NamedTuple):
    """Keys and values of all that precedes the first generated token.

    Attributes:
      kv: keys and values of each layer; decoding reads them with keys transposed.
      valid: which of the C slots hold a key.
      next_position: position of the first generated token.
    """

    kv: tuple[KV, ...] | tuple[TransposedKV, ...]
    valid: Bool[Array, "B C"]
    next_position: Int[Array, "B"]

    @property
    def num_slots(self) -> int:
        """Number of slots (C)."""
        return self.valid.shape[1]

    def transpose_keys(self) -> "PrefixCache":
        """Returns the cache in the layout that decoding reads."""
        return self._replace(kv=tuple(map(transpose_keys, self.kv)))


def transpose_keys(projected: KV) -> TransposedKV:
    """Keys as [B, H, Dh, S], and values."""
    keys, values = projected
    return jnp.swapaxes(keys, 2, 3), values


def empty_prefix(
    batch_size: int,
    layers: int,
    heads: int,
    head_dim: int,
    dtype: DType = jnp.float32,
) -> PrefixCache:
    """Where nothing stands before."""
    empty = jnp.zeros((batch_size, heads, 0, head_dim), dtype)
    valid = jnp.zeros((batch_size, 0), bool)
    return PrefixCache(
        ((empty, empty),) * layers, valid, jnp.zeros(batch_size, jnp.int32)
    )


class DecodeState(NamedTuple):
    """What N hypotheses a row have written, in families of G.

    Attributes:
      kv: a layer's keys and values each, of F families; the slots of a step stand
        side by side.
      ancestry: which member of its family wrote a hypothesis's token at each step.
      step: the next one's number, of all rows.
    """

    kv: tuple[KVBlocks, ...]
    ancestry: Int[Array, "B N L"]
    step: Int[Array, ""]

    @property
    def num_beams_per_group(self) -> int:
        """G."""
        return num_slots(self.kv[0]) // self.ancestry.shape[2]

    def expand_to_beams(self, count: int, *, related: bool) -> "DecodeState":
        """One hypothesis a row as `count` equal ones: one family, or each its own."""
        caches = tuple(tile_beams(each, count, related=related) for each in self.kv)
        return DecodeState(caches, jnp.repeat(self.ancestry, count, axis=1), self.step)

    def gather_beams(self, parents: Int[Array, "B K"]) -> "DecodeState":
        """With hypotheses that go on from others of a row.

        Raises ValueError where those of a row are several families.
        """
        if self.num_beams_per_group != self.ancestry.shape[1]:
            raise ValueError(
                "hypotheses that each are a family do not go on from one another: "
                "widen the state with related=True"
            )
        ancestry = jnp.take_along_axis(self.ancestry, parents[:, :, None], axis=1)
        return self._replace(ancestry=ancestry)

    def begin_step(self) -> "DecodeState":
        """With the step's slots given to those who write into them now."""
        num = self.ancestry.shape[1]
        writers = jnp.arange(num, dtype=self.ancestry.dtype) % self.num_beams_per_group
        ancestry = jax.lax.dynamic_update_index_in_dim(
            self.ancestry,
            jnp.broadcast_to(writers, self.ancestry.shape[:2]),
            self.step,
            axis=2,
        )
        return self._replace(ancestry=ancestry)

    def end_step(self, caches: tuple[KVBlocks, ...]) -> "DecodeState":
        """After the step, which has written into the caches."""
        return self._replace(kv=caches, step=self.step + 1)


def init_decode_state(past: PrefixCache, max_steps: int) -> DecodeState:
    """One hypothesis a row that has written nothing yet, with room to."""
    rows = len(past.valid)
    ancestry = jnp.zeros((rows, 1, max_steps), jnp.int32)
    caches = (init_blocks(past.kv[0], max_steps),) * len(past.kv)
    return DecodeState(caches, ancestry, jnp.zeros((), jnp.int32))


def step_masks(
    past: PrefixCache, state: DecodeState, distances: tuple, window: Int[Array, ""]
) -> tuple[StepMask, ...]:
    """What the token of each hypothesis sees that its slot was opened for, a layer.

    Args:
      distances: a layer's projected distances C + L - 1 to 0 each, or None.
      window: keys at this distance or farther are not seen.
    """
    num_before, max_steps = past.num_slots, state.ancestry.shape[2]
    total = num_before + max_steps
    away = num_before + state.step - jnp.arange(total)
    near = (away >= 0) & (away < window)
    before, since = jnp.split(near, [num_before])
    own = ancestry_mask(state) & jnp.repeat(since, state.num_beams_per_group)
    before = jnp.broadcast_to(
        (past.valid & before)[:, None], (*own.shape[:2], num_before)
    )
    mask = jnp.concatenate([before, own], axis=-1)
    places = (past.next_position + state.step)[:, None]

    def falling(projected):
        if projected is None:
            return None
        later = jnp.pad(projected, ((0, max_steps - 1), (0, 0), (0, 0)))
        start = max_steps - 1 - state.step
        return jax.lax.dynamic_slice_in_dim(later, start, total)

    last = active_block(state.step, max_steps)
    return tuple(
        StepMask(mask, places, last, falling(projected)) for projected in distances
    )


def ancestry_mask(state: DecodeState) -> Bool[Array, "B N S"]:
    """Which of its family's L G slots are a hypothesis's past, if they are filled."""
    own = state.ancestry[..., None] == jnp.arange(state.num_beams_per_group)
    return own.reshape(*state.ancestry.shape[:2], -1)
