"""Greedy decoding: the likeliest token, again and again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from decoding.hypotheses import Step
from decoding.rules import Rules


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
    min_length: int = 0,
    prefix: tuple[Int[Array, "B P"], Bool[Array, "B P"]] | None = None,
) -> Int[Array, "B L"]:
    """What follows `first`: at most `limits` tokens a row, the last one `end`.

    Stops when every row has ended. Places after a row's end hold `end`.

    Args:
      step: a model's, see the contract in README.md.
      max_steps: L.
      forbidden, min_length, prefix: see `Rules`.
    """
    rules = Rules(limits, max_steps, end, min_length, forbidden, prefix)
    rows = len(first)

    def unfinished(loop):
        number, _, _, done, _ = loop
        return (number < max_steps) & ~done.all()

    def advance(loop):
        number, state, token, done, chosen = loop
        state, logits = step(context, state, token[:, None])[:2]
        allowed = rules.allowed(number, logits.shape[-1])
        best = jnp.where(allowed, logits[:, 0], -jnp.inf).argmax(axis=-1)
        token = jnp.where(done, end, best.astype(jnp.int32))
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
