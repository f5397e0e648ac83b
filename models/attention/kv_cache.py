"""Key/value cache of decoding, shared by the beams of a sentence.

The prefix (memory and prompt, C slots) is stored once a sentence. The tokens generated
since are stored by beam group: W beams that may continue one another share W slots for
each of L steps. Each beam keeps back-pointers (`ancestry`) to the slots of its own
tokens, so that a search which reorders beams moves no keys and values. The price: a
query computes logits for the slots of its whole group, W a step, of which
the step mask leaves one.

Keys are transposed, [B, H, K, S]: XLA's CPU backend multiplies them with several
queries in half of the time, and with one query in the same time.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.dispatch import device_kind
from models.common.dtypes import DType
from models.common.masks import masked_softmax

KV = tuple[Float[Array, "B H S K"], Float[Array, "B H S K"]]
SourceKV = tuple[Float[Array, "B H E K"], Float[Array, "B H E K"]]
TransposedKV = tuple[Float[Array, "B H K S"], Float[Array, "B H S K"]]
KVBlock = tuple[Float[Array, "_ H K _"], Float[Array, "_ H _ K"]]  # G groups
KVBlocks = tuple[KVBlock, ...]

FIRST_BLOCK_STEPS = 16  # smaller first blocks were not faster


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

    def to_decode_layout(self) -> "PrefixCache":
        """Returns the cache with keys transposed, as decoding reads it."""
        return self._replace(kv=tuple(map(transpose_keys, self.kv)))


def transpose_keys(kv: KV) -> TransposedKV:
    """Returns keys as [B, H, K, S], and values unchanged."""
    keys, values = kv
    return jnp.swapaxes(keys, 2, 3), values


def empty_prefix(
    batch_size: int, layers: int, heads: int, head_dim: int, dtype: DType = jnp.float32
) -> PrefixCache:
    """Returns a prefix without slots."""
    empty = jnp.zeros((batch_size, heads, 0, head_dim), dtype)
    valid = jnp.zeros((batch_size, 0), bool)
    positions = jnp.zeros(batch_size, jnp.int32)
    return PrefixCache(((empty, empty),) * layers, valid, positions)


class DecodeState(NamedTuple):
    """Cache of the tokens that N beams of each sentence have generated.

    Attributes:
      kv: keys and values of each layer, of G beam groups; the W slots of a step are
        adjacent.
      ancestry: which beam of its group wrote a beam's token of each step.
      step: index of the next step, the same for all sentences.
    """

    kv: tuple[KVBlocks, ...]
    ancestry: Int[Array, "B N L"]
    step: Int[Array, ""]

    @property
    def beams_per_group(self) -> int:
        """Number of beams that share a cache (W)."""
        num_slots = sum(values.shape[2] for _, values in self.kv[0])
        return num_slots // self.ancestry.shape[2]

    def expand_to_beams(self, count: int, *, related: bool) -> "DecodeState":
        """Repeats the one beam of each sentence.

        Args:
          related: whether beams form one group, so that `gather_beams` may follow;
            else each is a group of its own.
        """
        kv = tuple(tile_beams(blocks, count, related=related) for blocks in self.kv)
        return DecodeState(kv, jnp.repeat(self.ancestry, count, axis=1), self.step)

    def gather_beams(self, parents: Int[Array, "B N"]) -> "DecodeState":
        """Reorders the cache: each beam continues the given one of its sentence.

        Raises:
          ValueError: the beams of a sentence are separate groups.
        """
        if self.beams_per_group != self.ancestry.shape[1]:
            raise ValueError(
                "Cannot reorder beams that are separate groups; "
                "expand the state with related=True"
            )
        ancestry = jnp.take_along_axis(self.ancestry, parents[:, :, None], axis=1)
        return self._replace(ancestry=ancestry)

    def begin_step(self) -> "DecodeState":
        """Points each beam to the slot that it writes in this step."""
        beams = jnp.arange(self.ancestry.shape[1], dtype=self.ancestry.dtype)
        slots = jnp.broadcast_to(beams % self.beams_per_group, self.ancestry.shape[:2])
        update = jax.lax.dynamic_update_index_in_dim
        ancestry = update(self.ancestry, slots, self.step, axis=2)
        return self._replace(ancestry=ancestry)

    def end_step(self, kv: tuple[KVBlocks, ...]) -> "DecodeState":
        """Stores the caches that the step has updated."""
        return self._replace(kv=kv, step=self.step + 1)


def init_decode_state(prefix: PrefixCache, max_steps: int) -> DecodeState:
    """Returns the state of one beam a sentence before its first token."""
    ancestry = jnp.zeros((prefix.valid.shape[0], 1, max_steps), jnp.int32)
    kv = (init_blocks(prefix.kv[0], max_steps),) * len(prefix.kv)
    return DecodeState(kv, ancestry, jnp.zeros((), jnp.int32))


class StepMask(NamedTuple):
    """Slots that the current token of each beam attends to.

    Attributes:
      mask: of the C slots of the prefix and the L W slots of the beam's group.
      positions: positions of the current tokens.
      active_block: index of the last block with a slot to attend to.
      relative_keys: keys of the positions relative to the C slots and L steps; None
        without relative positions.
    """

    mask: Bool[Array, "B N S"]
    positions: Int[Array, "B 1"]
    active_block: Int[Array, ""]
    relative_keys: Float[Array, "_ H K"] | None


def step_masks(
    prefix: PrefixCache,
    state: DecodeState,
    relative_keys: tuple,
    window: Int[Array, ""],
) -> tuple[StepMask, ...]:
    """Returns the masks of each layer, for a state after `begin_step`.

    Args:
      relative_keys: of each layer, for relative positions C + L - 1 to 0, or None.
      window: keys at this relative position or farther are masked.
    """
    num_prefix, max_steps = prefix.num_slots, state.ancestry.shape[2]
    total = num_prefix + max_steps
    relative = num_prefix + state.step - jnp.arange(total)
    near = (relative >= 0) & (relative < window)
    near_prefix, near_steps = jnp.split(near, [num_prefix])
    # Which of the L W slots of its group hold a beam's own tokens.
    own = state.ancestry[..., None] == jnp.arange(state.beams_per_group)
    generated = own & near_steps[:, None]
    generated = generated.reshape(*state.ancestry.shape[:2], -1)
    prefix_mask = (prefix.valid & near_prefix)[:, None]
    prefix_mask = jnp.broadcast_to(prefix_mask, (*generated.shape[:2], num_prefix))
    mask = jnp.concatenate([prefix_mask, generated], axis=-1)
    positions = (prefix.next_position + state.step)[:, None]

    def keys_of_slots(keys):
        if keys is None:
            return None
        padded = jnp.pad(keys, ((0, max_steps - 1), (0, 0), (0, 0)))
        start = max_steps - 1 - state.step
        return jax.lax.dynamic_slice_in_dim(padded, start, total)

    block = active_block(state.step, max_steps)
    return tuple(
        StepMask(mask, positions, block, keys_of_slots(keys)) for keys in relative_keys
    )


def decode_attention(
    query: Float[Array, "B H N K"],
    position_query: Float[Array, "B H N K"],
    prefix: TransposedKV,
    blocks: KVBlocks,
    step_mask: StepMask,
) -> Float[Array, "B H N K"]:
    """Computes attention over the prefix and the blocks up to the active one."""
    inputs = (query, position_query, prefix, step_mask)
    branches = [
        functools.partial(_attend_blocks, *inputs, blocks[: last + 1])
        for last in range(len(blocks))
    ]
    if len(branches) == 1:
        return branches[0]()
    return jax.lax.switch(step_mask.active_block, branches)


def _attend_blocks(query, position_query, prefix, step_mask, blocks):
    keys, values = prefix
    batch_size, num_prefix = keys.shape[0], keys.shape[3]
    num_groups = blocks[0][0].shape[0]
    beams_per_group = batch_size * query.shape[2] // num_groups
    grouped = split_groups(query, num_groups)
    logits = [jnp.einsum("GHWK,GHKS->GHWS", grouped, keys) for keys, _ in blocks]
    ends = list(itertools.accumulate(part.shape[-1] for part in logits))
    logits = [
        jnp.einsum("BHNK,BHKC->BHNC", query, keys),
        merge_groups(jnp.concatenate(logits, axis=-1), batch_size),
    ]
    if step_mask.relative_keys is not None:
        near = step_mask.relative_keys[: num_prefix + ends[-1] // beams_per_group]
        relative = jnp.einsum("BHNK,SHK->BHNS", position_query, near)
        of_prefix, of_steps = jnp.split(relative, [num_prefix], axis=-1)
        logits[0] += of_prefix
        logits[1] += jnp.repeat(of_steps, beams_per_group, axis=-1)
    logits = jnp.concatenate(logits, axis=-1) * values.shape[-1] ** -0.5
    mask = step_mask.mask[:, None, :, : num_prefix + ends[-1]]
    weights = masked_softmax(logits, mask)
    of_prefix, of_steps = jnp.split(weights, [num_prefix], axis=-1)
    of_blocks = jnp.split(split_groups(of_steps, num_groups), ends[:-1], axis=-1)
    generated = sum(
        jnp.einsum("GHWS,GHSK->GHWK", part, values)
        for part, (_, values) in zip(of_blocks, blocks, strict=True)
    )
    output = jnp.einsum("BHNC,BHCK->BHNK", of_prefix, values)
    return output + merge_groups(generated, batch_size)


def split_groups(
    x: Float[Array, "B H N _"], num_groups: int
) -> Float[Array, "G H W _"]:
    """Splits the beams of each sentence into groups, in the same order."""
    batch_size, heads, _, size = x.shape
    if num_groups == batch_size:
        return x
    parts = x.reshape(batch_size, heads, num_groups // batch_size, -1, size)
    return jnp.swapaxes(parts, 1, 2).reshape(num_groups, heads, -1, size)


def merge_groups(
    x: Float[Array, "G H W _"], batch_size: int
) -> Float[Array, "B H N _"]:
    """Merges the groups of each sentence; the inverse of `split_groups`."""
    num_groups, heads, _, size = x.shape
    if num_groups == batch_size:
        return x
    parts = x.reshape(batch_size, num_groups // batch_size, heads, -1, size)
    return jnp.swapaxes(parts, 1, 2).reshape(batch_size, heads, -1, size)


# Storage of the generated tokens: blocks that double in size. A step attends to the
# blocks up to the active one, at most twice as many slots as hold a token, or those of
# FIRST_BLOCK_STEPS, however large `max_steps` is. On CPUs only: accelerators have one
# block, since XLA for TPUs copies what a branch reads; its speed was not measured.


def block_sizes(max_steps: int) -> tuple[int, ...]:
    """Returns the number of steps of each block; `max_steps` in all."""
    if device_kind() != "cpu":
        return (max_steps,)
    sizes = [min(FIRST_BLOCK_STEPS, max_steps)]
    while (remaining := max_steps - sum(sizes)) > 0:
        sizes.append(min(sum(sizes), remaining))
    return tuple(sizes)


def init_blocks(like: TransposedKV, max_steps: int) -> KVBlocks:
    """Returns empty blocks of one beam a sentence, next to a prefix like this."""
    shape, dtype = like[0].shape[:3], like[0].dtype
    keys = (jnp.zeros((*shape, steps), dtype) for steps in block_sizes(max_steps))
    return tuple((empty, jnp.swapaxes(empty, 2, 3)) for empty in keys)


def tile_beams(blocks: KVBlocks, count: int, *, related: bool) -> KVBlocks:
    """Repeats each beam, within its group or as groups of their own."""
    key_axis, value_axis = (3, 2) if related else (0, 0)
    return tuple(
        (jnp.repeat(keys, count, key_axis), jnp.repeat(values, count, value_axis))
        for keys, values in blocks
    )


def active_block(step: Int[Array, ""], max_steps: int) -> Int[Array, ""]:
    """Returns the index of the block that holds the step's token."""
    *ends, _ = itertools.accumulate(block_sizes(max_steps))
    return (step >= jnp.asarray(ends, jnp.int32)).sum(dtype=jnp.int32)


def update_cache(
    blocks: KVBlocks,
    new: tuple[Float[Array, "B H N K"], Float[Array, "B H N K"]],
    step: Int[Array, ""],
) -> KVBlocks:
    """Writes the key and the value of each beam's token into the slots of a step.

    Blocks without the step are rewritten with their own contents: XLA would copy those
    that a branch leaves alone.
    """
    num_groups = blocks[0][0].shape[0]
    keys, values = (split_groups(each, num_groups) for each in new)
    keys, beams_per_group, first = jnp.swapaxes(keys, 2, 3), values.shape[2], 0
    updated = []
    for old_keys, old_values in blocks:
        steps = old_values.shape[2] // beams_per_group
        inside = len(blocks) == 1 or (step >= first) & (step < first + steps)
        start = jnp.clip(step - first, 0, steps - 1) * beams_per_group
        old_keys = _write(old_keys, keys, start, inside, axis=3)
        updated.append((old_keys, _write(old_values, values, start, inside, axis=2)))
        first += steps
    return tuple(updated)


def _write(slots, new, start, inside, axis):
    old = jax.lax.dynamic_slice_in_dim(slots, start, new.shape[axis], axis)
    update = jax.lax.dynamic_update_slice_in_dim
    return update(slots, jnp.where(inside, new, old), start, axis)
