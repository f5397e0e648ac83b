"""Hypotheses of a search: their constraints, their beam axis, and the best tokens."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

# A model's method `step`: (context, state, token [B N]) -> (state, logits [B N V]),
# or (state, logits, attention [B N S]) where attention to the source is needed.
StepFn = Callable[[PyTree, PyTree, Int[Array, "B N"]], tuple]

NOT_FORCED = -1
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

    def to_lists(self) -> list[list[tuple[list[int], float]]]:
        """Returns ids without the end symbol and scores of those not missing."""
        tokens, scores, lengths = jax.device_get(self)
        outputs = [[] for _ in tokens]
        for index in zip(*np.nonzero(scores != -np.inf), strict=True):
            ids = tokens[index][: max(lengths[index] - 1, 0)].tolist()
            outputs[index[0]].append((ids, float(scores[index])))
        return outputs


@dataclasses.dataclass(frozen=True, eq=False)
class DecodingConstraints:
    """Rules for the tokens that may come next in each example.

    A hypothesis begins with the prefix of its example and has its end symbol within
    the length limit. The prefix takes precedence over the limit, and both over the
    other rules.

    Attributes:
      length_limits: maximum number of tokens with the end symbol; at most `max_steps`.
      max_steps: number of decoding steps (L).
      min_length: minimum number of tokens before the end symbol.
      forbidden: token ids that only a prefix may contain.
      prefix: token ids that hypotheses begin with, and their valid mask; P < L.
      prompt: token ids before the first token, and their valid mask, where these and
        the first token count as repeated.

    Raises:
      ValueError: the prefix leaves no room for an end symbol.
    """

    length_limits: Int[Array, "B"]
    max_steps: int
    eos_id: int
    min_length: int = 0
    forbidden: tuple[int, ...] = ()
    prefix: tuple[Int[Array, "B P"], Bool[Array, "B P"]] | None = None
    prompt: tuple[Int[Array, "B Q"], Bool[Array, "B Q"]] | None = None

    def __post_init__(self):
        if self.prefix is not None and self.prefix[0].shape[1] >= self.max_steps:
            raise ValueError(
                f"A prefix of {self.prefix[0].shape[1]} tokens leaves no room for an "
                f"end symbol; it must be shorter than max_steps={self.max_steps}"
            )

    @property
    def max_length(self) -> Int[Array, "B"]:
        """Maximum number of tokens of each example, prefix and end symbol included."""
        limits = jnp.clip(self.length_limits, 1, self.max_steps)
        if self.prefix is None:
            return limits
        mask = self.prefix[1]
        lengths = jnp.where(mask, jnp.arange(1, mask.shape[1] + 1), 0).max(axis=1)
        return jnp.maximum(limits, lengths + 1)

    def forced_token(self, step: Int[Array, ""]) -> Int[Array, "B"]:
        """Returns the only token allowed at a step (from 0), or NOT_FORCED."""
        at_limit = step >= jnp.clip(self.length_limits, 1, self.max_steps) - 1
        final = jnp.where(at_limit, self.eos_id, NOT_FORCED)
        if self.prefix is None:
            return final
        forced = jnp.where(self.prefix[1], self.prefix[0], NOT_FORCED)
        padding = ((0, 0), (0, self.max_steps - forced.shape[1]))
        forced = jnp.pad(forced, padding, constant_values=NOT_FORCED)[:, step]
        return jnp.where(forced == NOT_FORCED, final, forced)

    def allowed(self, step: Int[Array, ""], vocab_size: int) -> Bool[Array, "B V"]:
        """Returns the mask of tokens allowed at a step (from 0)."""
        tokens = jnp.arange(vocab_size)
        free = jnp.ones(vocab_size, bool)
        for token in self.forbidden:
            free &= tokens != token
        free &= (tokens != self.eos_id) | (step >= self.min_length)
        forced = self.forced_token(step)[:, None]
        return jnp.where(forced == NOT_FORCED, free, tokens == forced)

    def restrict(
        self,
        step: Int[Array, ""],
        logits: Float[Array, "B N V"],
        tokens: Int[Array, "B N L"],
    ) -> tuple[Float[Array, "B N V"], Bool[Array, "B #N V"]]:
        """Returns logits to search, and the mask of tokens allowed at a step.

        Args:
          tokens: hypotheses, of which the first `step` tokens are chosen.
        """
        return logits, self.allowed(step, logits.shape[-1])[:, None]


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
    """Returns whether a node has its own `expand_to_beams` and `gather_beams`."""
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

    def split(x):
        padding = [(0, 0)] * (x.ndim - 1) + [(0, -vocab_size % VOCAB_BLOCK_SIZE)]
        padded = jnp.pad(x, padding, constant_values=-jnp.inf if x is scores else False)
        return padded.reshape(*x.shape[:-1], num_blocks, VOCAB_BLOCK_SIZE)

    blocks = jax.tree.map(split, (scores, allowed))
    _, chosen = jax.lax.top_k(_mask_scores(*blocks).max(axis=-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # so that ties keep the order of token ids
    take = functools.partial(jnp.take_along_axis, indices=chosen[..., None], axis=-2)
    candidates = _mask_scores(*jax.tree.map(take, blocks))
    best, indices = jax.lax.top_k(candidates.reshape(*scores.shape[:-1], -1), count)
    block = jnp.take_along_axis(chosen, indices // VOCAB_BLOCK_SIZE, axis=-1)
    tokens = block * VOCAB_BLOCK_SIZE + indices % VOCAB_BLOCK_SIZE
    return best, jnp.minimum(tokens, vocab_size - 1)


def _mask_scores(scores, allowed):
    return scores if allowed is None else jnp.where(allowed, scores, -jnp.inf)
