"""Losses of a language model that sees exactly so many tokens, and none before."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree


def spread_places(num_tokens: int, longest: int, count: int) -> np.ndarray:
    """At most `count` places of a text, evenly apart, each after `longest` tokens."""
    count = min(count, num_tokens - longest)
    return longest + np.arange(count, dtype=np.int64) * (num_tokens - longest) // count


def context_losses(
    model: nn.Module,
    variables: PyTree,
    text: np.ndarray,
    places: np.ndarray,
    lengths: Sequence[int],
    *,
    rows: int,
    segment_length: int,
) -> np.ndarray:
    """l(c, t) = -log P(x_t | x_(t-c) .. x_(t-1)) in nats, [lengths, places].

    Every window of c tokens is read anew from an empty carry, so that no token
    before it is known. A model that remembers reads it as an evaluation would, in
    segments of which the last is whole; one that does not reads it at once.

    Args:
      text: a split's tokens, one after another.
      places: t; none is smaller than the longest of `lengths`.
      rows: windows that are read side by side.
    """
    carry = model.initial_carry(rows, train=False)
    remembers = bool(jax.tree.leaves(carry))
    found = np.zeros((len(lengths), len(places)))
    for one, length in enumerate(lengths):
        segments = cuts(length, segment_length if remembers else length)
        for first in range(0, len(places), rows):
            part = places[first : first + rows]
            full = np.resize(part, rows)  # the last part is filled with its own
            window = text[full[:, None] + np.arange(-length, 0)].astype(np.int32)
            *before, last = np.split(window, segments, axis=1)
            after = carry
            for segment in before:
                after = _read(model, variables, segment, after)
            labels = text[full].astype(np.int32)[:, None]
            losses = _losses(model, variables, last, labels, after)
            found[one, first : first + rows] = losses[: len(part)]
    return found


def cuts(length: int, segment_length: int) -> list[int]:
    """Where a window is cut into segments; only the first may be shorter."""
    first = length % segment_length or segment_length
    return list(range(first, length, segment_length))


@functools.partial(jax.jit, static_argnums=0)
def _read(model, variables, tokens, carry):
    """What a segment leaves behind."""
    return model.apply(variables, tokens, carry, train=False)[1]


@functools.partial(jax.jit, static_argnums=0)
def _losses(model, variables, tokens, labels, carry):
    """Of what follows a segment, in each row."""

    def last(model):
        hidden, _ = model(tokens, carry, train=False)
        return -model.log_prob(hidden[:, -1:], labels)[:, 0]

    return nn.apply(last, model)(variables)
