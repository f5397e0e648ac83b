"""Sampling from a model's distribution: temperature, top-k and top-p.

A temperature of 0, or so close to it that float32 tells no difference, is greedy
decoding.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from decoding.config import DecodingConfig
from decoding.hypotheses import (
    DecodingConstraints,
    Hypotheses,
    StepFn,
    blockwise_top_k,
    expand_beams,
)

# At lower temperatures, the smallest difference of float32 between two logits about 1
# is a ratio of probabilities of e^600, and large logits overflow.
MIN_TEMPERATURE = 1e-10


def sample(
    step_fn: StepFn,
    context: PyTree,
    state: PyTree,
    first_token: Int[Array, "B"],
    constraints: DecodingConstraints,
    config: DecodingConfig,
    *,
    keys: Key[Array, "B"],
) -> Hypotheses:
    """Draws `n_best` continuations of each `first_token`, in no order.

    Their scores are log probabilities of the model's own distribution, before
    penalties, filters and constraints.

    Args:
      keys: random key of each example, so that its tokens do not depend on the batch.
    """
    eos_id = constraints.eos_id

    def is_unfinished(loop):
        step, *_, done = loop
        return (step < constraints.max_steps) & ~done.all()

    def advance(loop):
        step, state, last_token, tokens, log_prob, done = loop
        state, logits = step_fn(context, state, last_token)[:2]
        restricted, allowed = constraints.restrict(step, logits, tokens)
        filtered, ids = filter_logits(config, restricted, allowed)
        index = sample_categorical(keys, step, filtered)
        token = jnp.take_along_axis(ids, index[..., None], axis=-1)[..., 0]
        token = jnp.where(done, eos_id, token.astype(jnp.int32))
        logit = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        gain = logit - jax.nn.logsumexp(logits, axis=-1)
        log_prob = log_prob + jnp.where(done, 0.0, gain)
        tokens = tokens.at[:, :, step].set(token)
        return step + 1, state, token, tokens, log_prob, done | (token == eos_id)

    shape = (first_token.shape[0], config.n_best)
    loop = (
        jnp.zeros((), jnp.int32),
        expand_beams(state, config.n_best, related=False),
        jnp.repeat(first_token.astype(jnp.int32)[:, None], config.n_best, axis=1),
        jnp.full((*shape, constraints.max_steps), eos_id, jnp.int32),
        jnp.zeros(shape),
        jnp.zeros(shape, bool),
    )
    *_, tokens, log_prob, _ = jax.lax.while_loop(is_unfinished, advance, loop)
    before_end = (tokens != eos_id).cumprod(axis=-1).sum(axis=-1)
    lengths = jnp.minimum(before_end + 1, tokens.shape[-1]).astype(jnp.int32)
    return Hypotheses(tokens, log_prob, lengths)


def greedy_search(*inputs, **options) -> Hypotheses:
    """Returns the samples of temperature 0, see `sample`, with scores of NaN."""
    hypotheses = sample(*inputs, **options)
    return hypotheses._replace(scores=jnp.full_like(hypotheses.scores, jnp.nan))


def filter_logits(
    config: DecodingConfig,
    logits: Float[Array, "*B V"],
    allowed: Bool[Array, "*#B V"] | None = None,
) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
    """Returns the filtered logits of allowed tokens, -inf where removed, and ids.

    Filters, in this order: the temperature; the `top_k` most probable tokens (Fan et
    al. 2018); the nucleus `top_p`, the fewest most probable tokens that have at least
    this mass (Holtzman et al. 2020, section 3.1). Logits are sorted, best first, only
    where a filter needs it; else they keep the order of the vocabulary. Ties go to the
    lower token id.
    """
    vocab_size = logits.shape[-1]
    if config.temperature < MIN_TEMPERATURE:
        return blockwise_top_k(logits, 1, allowed)
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    logits = logits / config.temperature
    if config.top_p == 1 and not 0 < config.top_k < vocab_size:
        return logits, jnp.broadcast_to(jnp.arange(vocab_size), logits.shape)
    count = min(config.top_k or vocab_size, vocab_size)
    logits, tokens = blockwise_top_k(logits, count)
    mass = jax.nn.softmax(logits, axis=-1)
    mass_before = jnp.cumsum(mass, axis=-1) - mass
    is_best = jnp.arange(logits.shape[-1]) == 0
    in_nucleus = is_best | (config.top_p == 1) | (mass_before < config.top_p)
    return jnp.where(in_nucleus, logits, -jnp.inf), tokens


def sample_categorical(
    keys: Key[Array, "B"], step: Int[Array, ""], logits: Float[Array, "B N K"]
) -> Int[Array, "B N"]:
    """Draws an index for each sample; its key is that of (example, step, sample)."""
    if logits.shape[-1] == 1:
        return jnp.zeros(logits.shape[:-1], jnp.int32)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    samples = jnp.arange(logits.shape[1])
    folded = jax.vmap(lambda key: fold(jax.random.fold_in(key, step), samples))(keys)
    return jax.vmap(jax.vmap(jax.random.categorical))(folded, logits)
