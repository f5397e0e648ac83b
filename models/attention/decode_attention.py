"""Attention of single tokens, one of each hypothesis, to a past and what is written.

The past, C slots, is what all hypotheses of a row share; what is written, in blocks,
are L G slots of a family, of which the mask leaves a hypothesis its own line.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.beam_groups import merge_groups, split_groups
from models.attention.kv_blocks import KVBlocks, TransposedKV
from models.common.masks import masked_softmax


class StepMask(NamedTuple):
    """Who a token sees of C slots before and L G of its family, and how far.

    Attributes:
      mask: of both, S in all.
      positions: of the token.
      active_block: the last of the blocks of which it may see anything.
      relative_keys: the projected distances of the C slots and L steps, where they
        matter.
    """

    mask: Bool[Array, "B N S"]
    positions: Int[Array, "B 1"]
    active_block: Int[Array, ""]
    relative_keys: Float[Array, "_ H Dh"] | None


class StepQueries(NamedTuple):
    """Queries of one token of each hypothesis: for contents, and for distances."""

    content: Float[Array, "B H N Dh"]
    position: Float[Array, "B H N Dh"]


def decode_attention(
    tokens: StepQueries, past: TransposedKV, written: KVBlocks, view: StepMask
) -> Float[Array, "B H N Dh"]:
    """softmax(scores / sqrt(Dh)) V over the past and the blocks that are reached."""
    choices = [
        functools.partial(_among, tokens, past, written[: last + 1], view)
        for last in range(len(written))
    ]
    if len(choices) == 1:
        return choices[0]()
    return jax.lax.switch(view.active_block, choices)


def _among(tokens, past, blocks, view):
    """What is found in a past and these blocks."""
    keys, values = past
    rows, num_before, num_families = len(keys), keys.shape[3], len(blocks[0][0])
    num_members = tokens.content.shape[0] * tokens.content.shape[2] // num_families
    asked = split_groups(tokens.content, num_families)
    since = [jnp.einsum("FHGK,FHKS->FHGS", asked, keys) for keys, _ in blocks]
    ends = _ends(since)
    scores = [
        jnp.einsum("BHNK,BHKC->BHNC", tokens.content, keys),
        merge_groups(jnp.concatenate(since, axis=-1), rows),
    ]
    if view.relative_keys is not None:
        near = view.relative_keys[: num_before + ends[-1] // num_members]
        by_distance = jnp.einsum("BHNK,SHK->BHNS", tokens.position, near)
        before, after = jnp.split(by_distance, [num_before], axis=-1)
        scores[0] += before
        scores[1] += jnp.repeat(after, num_members, axis=-1)
    scores = jnp.concatenate(scores, axis=-1) * values.shape[-1] ** -0.5
    mask = view.mask[:, None, :, : num_before + ends[-1]]
    weights = masked_softmax(scores, mask)
    before, after = jnp.split(weights, [num_before], axis=-1)
    parts = jnp.split(split_groups(after, num_families), ends[:-1], axis=-1)
    own = sum(
        jnp.einsum("FHGS,FHSK->FHGK", part, values)
        for part, (_, values) in zip(parts, blocks, strict=True)
    )
    return jnp.einsum("BHNC,BHCK->BHNK", before, values) + merge_groups(own, rows)


def _ends(parts):
    """Where each of some arrays ends, put side by side."""
    return list(itertools.accumulate(part.shape[-1] for part in parts))
