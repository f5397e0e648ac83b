"""Greedy decoding: the likeliest token, again and again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

Step = Callable[
    [PyTree, PyTree, Int[Array, "B 1"]], tuple[PyTree, Float[Array, "B 1 V"]]
]


def greedy(
    step: Step,
    context: PyTree,
    state: PyTree,
    first: Int[Array, "B"],
    *,
    limits: Int[Array, "B"],
    max_steps: int,
    end: int,
    forbidden: tuple[int, ...] = (),
) -> Int[Array, "B L"]:
    """What follows `first`: at most `limits` tokens a row, the last one `end`.

    Stops when every row has ended. Places after a row's end hold `end`.

    Args:
      step: a model's, see the contract in README.md.
      max_steps: L.
      forbidden: tokens that are never chosen.
    """
    rows = len(first)
    never = jnp.asarray(forbidden, jnp.int32)

    def unfinished(loop):
        number, _, _, done, _ = loop
        return (number < max_steps) & ~done.all()

    def advance(loop):
        number, state, token, done, chosen = loop
        state, logits = step(context, state, token[:, None])
        best = logits[:, 0].at[:, never].set(-jnp.inf).argmax(axis=-1)
        token = jnp.where(done | (number >= limits - 1), end, best.astype(jnp.int32))
        chosen = chosen.at[:, number].set(token)
        return number + 1, state, token, done | (token == end), chosen

    start = (
        jnp.asarray(0),
        state,
        first.astype(jnp.int32),
        jnp.zeros(rows, bool),
        jnp.full((rows, max_steps), end, jnp.int32),
    )
    return jax.lax.while_loop(unfinished, advance, start)[-1]
