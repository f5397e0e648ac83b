"""Hypotheses of a search, the beam axis of a decoding state, and the best tokens."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

# A model's method `step`: (context, state, token [B N]) -> (state, logits [B N V]),
# or (state, logits, attention [B N S]) where attention to the source is needed.
StepFn = Callable[[PyTree, PyTree, Int[Array, "B N"]], tuple]

VOCAB_BLOCK_SIZE = 64  # tokens of a block of `blockwise_top_k`


class Hypotheses(NamedTuple):
    """K hypotheses of each example.

    Attributes:
      tokens: token ids up to and with the end symbol, which also pads them.
      scores: value that the search ranks by; -inf for a missing hypothesis.
      lengths: number of tokens with the end symbol; 0 for a missing hypothesis.
    """

    tokens: Int[Array, "B K L"]
    scores: Float[Array, "B K"]
    lengths: Int[Array, "B K"]


def sequence_lengths(tokens: Int[Array, "B K L"], eos_id: int) -> Int[Array, "B K"]:
    """Returns the number of tokens up to and with the first end symbol."""
    before = (tokens != eos_id).cumprod(axis=-1).sum(axis=-1)
    return jnp.minimum(before + 1, tokens.shape[-1]).astype(jnp.int32)


def expand_beams(state: PyTree, count: int, *, related: bool) -> PyTree:
    """Repeats the only hypothesis [B, 1, ...] of a decoding state `count` times.

    Args:
      related: whether hypotheses may continue one another, see `gather_beams`.
    """

    def repeat(leaf):
        if has_custom_gather(leaf):
            return leaf.expand_to_beams(count, related=related)
        return jnp.repeat(leaf, count, axis=1) if jnp.ndim(leaf) else leaf

    return jax.tree.map(repeat, state, is_leaf=has_custom_gather)


def gather_beams(tree: PyTree, parents: Int[Array, "B K"]) -> PyTree:
    """Selects hypotheses of all leaves [B, N, ...] by their indices `parents`.

    Scalars stay as they are. A decoding state must have been expanded with
    `related=True`; nodes with a custom gather reorder themselves.

    The two leading axes are merged and indices are not checked for bounds, so that
    XLA copies whole hypotheses: on a CPU half the time of a checked gather.
    """

    def gather(leaf):
        if has_custom_gather(leaf):
            return leaf.gather_beams(parents)
        if not leaf.ndim:
            return leaf
        batch_size, num_beams = leaf.shape[:2]
        indices = parents + num_beams * jnp.arange(batch_size)[:, None]
        merged = leaf.reshape(batch_size * num_beams, *leaf.shape[2:])
        return merged.at[indices].get(mode="promise_in_bounds")

    return jax.tree.map(gather, tree, is_leaf=has_custom_gather)


def has_custom_gather(node: PyTree) -> bool:
    """Returns whether a node of a decoding state implements its own beam gather.

    Such a node has the methods `expand_to_beams(count, *, related)` and
    `gather_beams(parents)`.
    """
    return hasattr(node, "gather_beams")


def blockwise_top_k(
    scores: Float[Array, "*B V"],
    count: int,
    allowed: Bool[Array, "*#B V"] | None = None,
) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
    """Returns the best scores and their tokens, best first; equals `jax.lax.top_k`.

    Ties go to the lower token id. The K best tokens lie in the K blocks with the
    highest maxima (the first of equal blocks), so only those are searched; this is
    faster than sorting a large vocabulary.

    Args:
      count: number of tokens K.
      allowed: tokens that may be chosen; all others score -inf. The mask is applied
        block by block, without a masked copy of all scores.
    """
    vocab_size = scores.shape[-1]
    num_blocks = -(-vocab_size // VOCAB_BLOCK_SIZE)
    if num_blocks < 2 * count:
        return tuple(jax.lax.top_k(_mask_scores(scores, allowed), count))
    blocks = _split_blocks(scores, num_blocks, -jnp.inf)
    if allowed is not None:
        allowed = _split_blocks(allowed, num_blocks, False)
    _, chosen = jax.lax.top_k(_mask_scores(blocks, allowed).max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # so that ties keep the order of token ids
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2)
    if allowed is not None:
        allowed = jnp.take_along_axis(allowed, chosen[..., None], axis=-2)
    candidates = _mask_scores(candidates, allowed).reshape(*scores.shape[:-1], -1)
    best, indices = jax.lax.top_k(candidates, count)
    block = jnp.take_along_axis(chosen, indices // VOCAB_BLOCK_SIZE, axis=-1)
    tokens = block * VOCAB_BLOCK_SIZE + indices % VOCAB_BLOCK_SIZE
    return best, jnp.minimum(tokens, vocab_size - 1)


def _split_blocks(x, num_blocks, padding_value):
    padding = [(0, 0)] * (x.ndim - 1) + [
        (0, num_blocks * VOCAB_BLOCK_SIZE - x.shape[-1])
    ]
    padded = jnp.pad(x, padding, constant_values=padding_value)
    return padded.reshape(*x.shape[:-1], num_blocks, VOCAB_BLOCK_SIZE)


def _mask_scores(scores, allowed):
    return scores if allowed is None else jnp.where(allowed, scores, -jnp.inf)
