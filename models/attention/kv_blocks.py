"""What hypotheses have written, in blocks of slots that a search reaches in turn.

The first block has room for 16 steps, each later one for as many as stand before it or
as are left. A token meets the blocks that are reached: at most twice as many slots as
are filled, and at least those of 16 steps, however many there is room for.

So it is on CPUs. Programs of accelerators have one block: XLA for TPUs copies what a
branch reads, and how fast it would be was not measured.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.attention.beam_groups import split_groups
from models.common.devices import device_kind

FIRST_BLOCK_STEPS = 16  # steps; smaller first blocks were not faster

TransposedKV = tuple[Float[Array, "B H Dh S"], Float[Array, "B H S Dh"]]
KVBlock = tuple[
    Float[Array, "_ H Dh _"], Float[Array, "_ H _ Dh"]
]  # F families, some slots
KVBlocks = tuple[KVBlock, ...]


def block_sizes(max_steps: int) -> tuple[int, ...]:
    """How many steps each block has room for, `max_steps` in all."""
    if device_kind() != "cpu":
        return (max_steps,)
    sizes = [min(FIRST_BLOCK_STEPS, max_steps)]
    while (room := max_steps - sum(sizes)) > 0:
        sizes.append(min(sum(sizes), room))
    return tuple(sizes)


def init_blocks(like: TransposedKV, max_steps: int) -> KVBlocks:
    """Room for one hypothesis a row, beside a past of such keys and values."""
    _, values = like
    rows, heads, _, head_dim = values.shape

    def block(steps):
        keys = jnp.zeros((rows, heads, head_dim, steps), values.dtype)
        return keys, jnp.swapaxes(keys, 2, 3)

    return tuple(block(steps) for steps in block_sizes(max_steps))


def tile_beams(written: KVBlocks, count: int, *, related: bool) -> KVBlocks:
    """Each hypothesis as `count` equal ones: of one family, or each its own."""
    of_keys, of_values = (3, 2) if related else (0, 0)
    return tuple(
        (jnp.repeat(keys, count, of_keys), jnp.repeat(values, count, of_values))
        for keys, values in written
    )


def num_slots(written: KVBlocks) -> int:
    """L G."""
    return sum(values.shape[2] for _, values in written)


def active_block(step: Int[Array, ""], max_steps: int) -> Int[Array, ""]:
    """Which block a step's token stands in; those up to it may be met."""
    *ends, _ = itertools.accumulate(block_sizes(max_steps))
    return (step >= jnp.asarray(ends, jnp.int32)).sum(dtype=jnp.int32)


def update_cache(
    written: KVBlocks,
    new: tuple[Float[Array, "B H N Dh"], Float[Array, "B H N Dh"]],
    step: Int[Array, ""],
) -> KVBlocks:
    """Puts one token's key and value of each hypothesis into its slot of a step.

    Every block is written to, those the step is not in with what stands there already:
    a branch that leaves them alone would copy them.
    """
    num_families = len(written[0][0])
    keys, values = (split_groups(each, num_families) for each in new)
    keys, num_members, first = jnp.swapaxes(keys, 2, 3), values.shape[2], 0
    blocks = []
    for old_keys, old_values in written:
        steps = old_values.shape[2] // num_members
        inside = len(written) == 1 or (step >= first) & (step < first + steps)
        start = jnp.clip(step - first, 0, steps - 1) * num_members
        blocks.append(
            (
                _put(old_keys, keys, start, inside, axis=3),
                _put(old_values, values, start, inside, axis=2),
            )
        )
        first += steps
    return tuple(blocks)


def _put(slots, new, start, inside, axis):
    old = jax.lax.dynamic_slice_in_dim(slots, start, new.shape[axis], axis)
    put = jax.lax.dynamic_update_slice_in_dim
    return put(slots, jnp.where(inside, new, old), start, axis)
