"""Sampling from a model's distribution: temperature, top-k and top-p."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from decoding.beam_axis import (
    Hypotheses,
    StepFn,
    blockwise_top_k,
    expand_beams,
    sequence_lengths,
)
from decoding.constraints import DecodingConstraints


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Filters of a distribution, applied in this order.

    Attributes:
      temperature: divisor of the logits; 0 keeps the most probable token only.
      top_k: number of most probable tokens to keep (Fan et al. 2018); 0: all.
      top_p: probability mass of the nucleus, the fewest most probable tokens that
        have at least this mass (Holtzman et al. 2020, section 3.1); 1: all tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def filter_logits(
        self, logits: Float[Array, "*B V"]
    ) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
        """Returns the filtered logits, -inf where removed, and their token ids.

        They are sorted, best first, only where a filter needs it; else they keep the
        order of the vocabulary. Ties go to the lower token id.
        """
        vocab_size = logits.shape[-1]
        if self.temperature == 0:
            return blockwise_top_k(logits, 1)
        logits = logits / self.temperature
        if self.top_p == 1 and not 0 < self.top_k < vocab_size:
            tokens = jnp.arange(vocab_size)
            return logits, jnp.broadcast_to(tokens, logits.shape)
        count = min(self.top_k or vocab_size, vocab_size)
        logits, tokens = blockwise_top_k(logits, count)
        mass = jax.nn.softmax(logits, axis=-1)
        mass_before = jnp.cumsum(mass, axis=-1) - mass
        is_best = jnp.arange(logits.shape[-1]) == 0
        in_nucleus = is_best | (self.top_p == 1) | (mass_before < self.top_p)
        return jnp.where(in_nucleus, logits, -jnp.inf), tokens


class SamplingState(NamedTuple):
    """Loop state of sampling N sequences an example."""

    step: Int[Array, ""]
    state: PyTree
    last_token: Int[Array, "B N"]
    tokens: Int[Array, "B N L"]
    log_prob: Float[Array, "B N"]
    done: Bool[Array, "B N"]


def sample(
    step_fn: StepFn,
    context: PyTree,
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    *,
    keys: Key[Array, "B"],
    num_samples: int = 1,
    config: SamplingConfig = SamplingConfig(),
) -> Hypotheses:
    """Draws `num_samples` continuations of each `first_token`, in no order.

    Their scores are log probabilities of the model's own distribution, before
    filters and constraints.

    Args:
      keys: random key of each example, so that its tokens do not depend on the batch.
      num_samples: number of samples an example (N).
    """
    eos_id = constraints.eos_id

    def is_unfinished(loop: SamplingState):
        return (loop.step < constraints.max_steps) & ~loop.done.all()

    def advance(loop: SamplingState) -> SamplingState:
        step, state, last_token, tokens, log_prob, done = loop
        state, logits = step_fn(context, state, last_token)[:2]
        allowed = constraints.allowed(step, logits.shape[-1])[:, None]
        filtered, ids = config.filter_logits(jnp.where(allowed, logits, -jnp.inf))
        index = sample_categorical(keys, step, filtered)
        token = jnp.take_along_axis(ids, index[..., None], axis=-1)[..., 0]
        token = jnp.where(done, eos_id, token.astype(jnp.int32))
        logit = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        gain = logit - jax.nn.logsumexp(logits, axis=-1)
        log_prob = log_prob + jnp.where(done, 0.0, gain)
        tokens = tokens.at[:, :, step].set(token)
        done = done | (token == eos_id)
        return SamplingState(step + 1, state, token, tokens, log_prob, done)

    shape = (len(first_token), num_samples)
    loop = SamplingState(
        jnp.zeros((), jnp.int32),
        expand_beams(state, num_samples, related=False),
        jnp.repeat(first_token.astype(jnp.int32)[:, None], num_samples, axis=1),
        jnp.full((*shape, constraints.max_steps), eos_id, jnp.int32),
        jnp.zeros(shape),
        jnp.zeros(shape, bool),
    )
    final = jax.lax.while_loop(is_unfinished, advance, loop)
    lengths = sequence_lengths(final.tokens, eos_id)
    return Hypotheses(final.tokens, final.log_prob, lengths)


def sample_categorical(
    keys: Key[Array, "B"], step: Int[Array, ""], logits: Float[Array, "B N K"]
) -> Int[Array, "B N"]:
    """Draws an index for each sample; its key is that of (example, step, sample)."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    samples = jnp.arange(logits.shape[1])
    folded = jax.vmap(lambda key: fold(jax.random.fold_in(key, step), samples))(keys)
    return jax.vmap(jax.vmap(jax.random.categorical))(folded, logits)
