"""Greedy decoding: the likeliest token, again and again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from decoding.blockwise_top_k import blockwise_top_k
from decoding.constraints import DecodingConstraints
from decoding.hypotheses import Step


def greedy(
    step: Step,
    context: PyTree,
    state: PyTree,
    first: Int[Array, "B"],
    rules: DecodingConstraints,
) -> Int[Array, "B L"]:
    """What follows `first` in each row, to its end.

    Stops when every row has ended. Places after a row's end hold the end.

    Args:
      step: a model's, see the contract in README.md.
    """
    rows = len(first)

    def unfinished(loop):
        number, _, _, done, _ = loop
        return (number < rules.max_steps) & ~done.all()

    def advance(loop):
        number, state, token, done, chosen = loop
        state, logits = step(context, state, token[:, None])[:2]
        allowed = rules.allowed(number, logits.shape[-1])
        best = blockwise_top_k(logits[:, 0], 1, allowed)[1][:, 0]
        token = jnp.where(done, rules.end, best)
        chosen = chosen.at[:, number].set(token)
        return number + 1, state, token, done | (token == rules.end), chosen

    start = (
        jnp.asarray(0),
        state,
        first.astype(jnp.int32),
        jnp.zeros(rows, bool),
        jnp.full((rows, rules.max_steps), rules.end, jnp.int32),
    )
    return jax.lax.while_loop(unfinished, advance, start)[-1]
