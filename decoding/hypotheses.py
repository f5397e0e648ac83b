"""What every search returns, and how hypotheses of one sentence stand in a state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

# A model's, see the contract in README.md: from (context, state, token [B N]) to
# (state, logits [B N V]) or, where someone asks, (..., attention [B N S]).
Step = Callable[[PyTree, PyTree, Int[Array, "B N"]], tuple]


class Hypotheses(NamedTuple):
    """K hypotheses a row.

    Attributes:
      tokens: with the end; places after it hold the end too.
      scores: what the search ranked by; -inf where fewer than K were found.
      lengths: tokens with the end; 0 where fewer than K were found.
    """

    tokens: Int[Array, "B K L"]
    scores: Float[Array, "B K"]
    lengths: Int[Array, "B K"]


def expand_beams(state: PyTree, count: int, *, related: bool) -> PyTree:
    """The state of one hypothesis a row as that of `count` equal ones.

    Args:
      related: whether they may go on from one another, see `gather_beams`.
    """

    def repeat(leaf):
        if has_custom_gather(leaf):
            return leaf.expand_to_beams(count, related=related)
        return jnp.repeat(leaf, count, axis=1) if jnp.ndim(leaf) else leaf

    return jax.tree.map(repeat, state, is_leaf=has_custom_gather)


def gather_beams(tree: PyTree, parents: Int[Array, "B K"]) -> PyTree:
    """Leaves [B, N, ...] with the hypotheses that `parents` names; others as is.

    Of a state that was widened as related; parts with an order of their own see to it.

    Rows and hypotheses are made one axis first, and no place is checked, since each is
    that of a hypothesis: XLA then copies whole hypotheses, which on a CPU takes half
    of the time of a gather that checks.
    """

    def gather(leaf):
        if has_custom_gather(leaf):
            return leaf.gather_beams(parents)
        if not leaf.ndim:
            return leaf
        rows, num = leaf.shape[:2]
        places = parents + num * jnp.arange(rows)[:, None]
        whole = leaf.reshape(rows * num, *leaf.shape[2:])
        return whole.at[places].get(mode="promise_in_bounds")

    return jax.tree.map(gather, tree, is_leaf=has_custom_gather)


def has_custom_gather(node: PyTree) -> bool:
    """Whether a part of a state sees itself to how hypotheses stand in it.

    It has methods `expand_to_beams(count, *, related)` and `gather_beams(parents)`.
    """
    return hasattr(node, "gather_beams")


def sequence_lengths(tokens: Int[Array, "B K L"], end: int) -> Int[Array, "B K"]:
    """How many tokens stand up to the first end, which counts."""
    before = (tokens != end).cumprod(axis=-1).sum(axis=-1)
    return jnp.minimum(before + 1, tokens.shape[-1]).astype(jnp.int32)
