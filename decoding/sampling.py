"""Sampling: tokens drawn from a model's distribution, or from the likely part of it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from decoding.blockwise_top_k import blockwise_top_k
from decoding.constraints import DecodingConstraints
from decoding.hypotheses import Hypotheses, Step, expand_beams, sequence_lengths


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """What a token is drawn from; each part works on what the one before left.

    Attributes:
      temperature: logits are divided by it; 0 leaves the likeliest token alone.
      top_k: so many of the likeliest tokens are left (Fan et al. 2018); 0: all.
      top_p: the fewest of the likeliest tokens whose mass is at least so much
        are left (the nucleus, Holtzman et al. 2020, section 3.1); 1: all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def filter_logits(
        self, logits: Float[Array, "*B V"]
    ) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
        """Logits that are left, -inf elsewhere, and their tokens.

        Best first, but in the vocabulary's order where nothing is left out: only
        a nucleus needs a sorted vocabulary. Of equal tokens the first is left.
        """
        size = logits.shape[-1]
        if self.temperature == 0:
            return blockwise_top_k(logits, 1)
        logits = logits / self.temperature
        if self.top_p == 1 and not 0 < self.top_k < size:
            tokens = jnp.arange(size)
            return logits, jnp.broadcast_to(tokens, logits.shape)
        logits, tokens = blockwise_top_k(logits, min(self.top_k or size, size))
        mass = jax.nn.softmax(logits, axis=-1)
        before = jnp.cumsum(mass, axis=-1) - mass
        first = jnp.arange(logits.shape[-1]) == 0
        in_nucleus = first | (self.top_p == 1) | (before < self.top_p)
        return jnp.where(in_nucleus, logits, -jnp.inf), tokens


class Loop(NamedTuple):
    """What a step of the search leaves to the next."""

    number: Int[Array, ""]
    state: PyTree
    last: Int[Array, "B N"]
    tokens: Int[Array, "B N L"]
    log_prob: Float[Array, "B N"]
    done: Bool[Array, "B N"]


def sample(
    step: Step,
    context: PyTree,
    state: PyTree,
    first: Int[Array, "B"],
    rules: DecodingConstraints,
    *,
    keys: Key[Array, "B"],
    count: int = 1,
    distribution: SamplingConfig = SamplingConfig(),
) -> Hypotheses:
    """`count` continuations of each row's `first`, in the order they were drawn.

    Their scores are log probabilities as the model has them, whatever they were
    drawn from.

    Args:
      keys: each row's own, so that a row's tokens are the same in any batch.
      count: N.
    """
    rows = len(first)

    def unfinished(loop: Loop):
        return (loop.number < rules.max_steps) & ~loop.done.all()

    def advance(loop: Loop) -> Loop:
        number, state, last, tokens, log_prob, done = loop
        state, logits = step(context, state, last)[:2]
        allowed = rules.allowed(number, logits.shape[-1])[:, None]
        left, ids = distribution.filter_logits(jnp.where(allowed, logits, -jnp.inf))
        place = draw(keys, number, left)
        token = jnp.take_along_axis(ids, place[..., None], axis=-1)[..., 0]
        token = jnp.where(done, rules.end, token.astype(jnp.int32))
        logit = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        gain = logit - jax.nn.logsumexp(logits, axis=-1)
        log_prob = log_prob + jnp.where(done, 0.0, gain)
        tokens = tokens.at[:, :, number].set(token)
        return Loop(
            number + 1, state, token, tokens, log_prob, done | (token == rules.end)
        )

    shape = (rows, count)
    loop = Loop(
        jnp.zeros((), jnp.int32),
        expand_beams(state, count, related=False),
        jnp.repeat(first.astype(jnp.int32)[:, None], count, axis=1),
        jnp.full((*shape, rules.max_steps), rules.end, jnp.int32),
        jnp.zeros(shape),
        jnp.zeros(shape, bool),
    )
    found = jax.lax.while_loop(unfinished, advance, loop)
    lengths = sequence_lengths(found.tokens, rules.end)
    return Hypotheses(found.tokens, found.log_prob, lengths)


def draw(
    keys: Key[Array, "B"], number: Int[Array, ""], logits: Float[Array, "B N K"]
) -> Int[Array, "B N"]:
    """A place among K for each hypothesis, by the row's key, the step and its own."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    numbers = jnp.arange(logits.shape[1])
    own = jax.vmap(lambda key: fold(jax.random.fold_in(key, number), numbers))(keys)
    return jax.vmap(jax.vmap(jax.random.categorical))(own, logits)
