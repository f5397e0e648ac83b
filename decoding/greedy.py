"""Greedy decoding: the most probable token at every step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from decoding.beam_axis import StepFn, blockwise_top_k
from decoding.constraints import DecodingConstraints


def greedy(
    step_fn: StepFn,
    context: PyTree,
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
) -> Int[Array, "B L"]:
    """Returns the tokens after `first_token`, padded with the end symbol.

    Stops when every example has ended.
    """
    batch_size, eos_id = len(first_token), constraints.eos_id

    def is_unfinished(loop):
        step, _, _, done, _ = loop
        return (step < constraints.max_steps) & ~done.all()

    def advance(loop):
        step, state, token, done, tokens = loop
        state, logits = step_fn(context, state, token[:, None])[:2]
        allowed = constraints.allowed(step, logits.shape[-1])
        best = blockwise_top_k(logits[:, 0], 1, allowed)[1][:, 0]
        token = jnp.where(done, eos_id, best)
        tokens = tokens.at[:, step].set(token)
        return step + 1, state, token, done | (token == eos_id), tokens

    initial = (
        jnp.asarray(0),
        state,
        first_token.astype(jnp.int32),
        jnp.zeros(batch_size, bool),
        jnp.full((batch_size, constraints.max_steps), eos_id, jnp.int32),
    )
    return jax.lax.while_loop(is_unfinished, advance, initial)[-1]
