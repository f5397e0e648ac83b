"""Rules against repetition in a hypothesis: n-grams that occur once, penalised tokens.

`no_repeat_ngram_size` n (Paulus et al. 2018, section 2.5, for n = 3; so in fairseq and
Hugging Face): a token is excluded if the last n - 1 tokens and it are an n-gram that
has occurred. The softmax still covers it, so that the scores of others do not change.

`repetition_penalty` theta (Keskar et al. 2019, "CTRL", section 4.1): the logit x of a
token that has occurred becomes x / theta if it is positive and x theta if not, as in
Hugging Face, since a division would raise a negative one. The softmax follows, then
the temperature and the filters of sampling. It is applied to logits in every method;
those of an ensemble are log probabilities. A beam ranks by log probabilities of the
changed distribution, unlike that of Hugging Face, which changes log probabilities.

Tokens that have occurred are those of the hypothesis, a given prefix included, and of
a language model's prompt; neither a source nor the end symbol count.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from decoding.config import DecodingConfig
from decoding.hypotheses import NOT_FORCED, DecodingConstraints

NOT_COUNTED = -1


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RepetitionConstraints(DecodingConstraints):
    """Constraints with the rules of a config against repetition.

    A hypothesis that these would leave without any continuation ends.

    Attributes:
      before: tokens that count as repeated before those of a hypothesis.
    """

    before: Int[Array, "B H"]
    config: DecodingConfig

    def restrict(self, step, logits, tokens):
        logits, allowed = super().restrict(step, logits, tokens)
        logits, excluded = self._apply_rules(step, logits, tokens)
        free = allowed & ~excluded
        is_end = jnp.arange(logits.shape[-1]) == self.eos_id
        free |= is_end & ~free.any(axis=-1, keepdims=True)
        is_forced = (self.forced_token(step) != NOT_FORCED)[:, None, None]
        return logits, jnp.where(is_forced, allowed, free)

    def _apply_rules(self, step, logits, tokens):
        """Returns penalised logits, and the mask of tokens that must not come next."""
        batch_size, num_beams, max_steps = tokens.shape
        chosen = jnp.where(jnp.arange(max_steps) < step, tokens, NOT_COUNTED)
        shape = batch_size, num_beams, self.before.shape[1]
        prompts = jnp.broadcast_to(self.before[:, None], shape)
        history = jnp.concatenate([prompts, chosen], axis=-1)
        history = jnp.where(history == self.eos_id, NOT_COUNTED, history)
        excluded = jnp.zeros(logits.shape, bool)
        size, penalty = self.config.no_repeat_ngram_size, self.config.repetition_penalty
        if size:
            end = self.before.shape[1] + step
            excluded = repeated_ngrams(history, end, size, logits.shape[-1])
        if penalty != 1:
            logits = penalize_tokens(history, penalty, logits)
        return logits, excluded


def add_repetition_rules(
    constraints: DecodingConstraints,
    first_token: Int[Array, "B"],
    config: DecodingConfig,
) -> RepetitionConstraints:
    """Returns constraints with the rules of a config against repetition."""
    before = jnp.zeros((first_token.shape[0], 0), jnp.int32)
    if constraints.prompt is not None:
        before = jnp.append(_align_right(*constraints.prompt), first_token[:, None], 1)
    return RepetitionConstraints(**vars(constraints), before=before, config=config)


def repeated_ngrams(
    history: Int[Array, "B N M"], end: Int[Array, ""], size: int, vocab_size: int
) -> Bool[Array, "B N V"]:
    """Returns which tokens would complete an n-gram that has occurred.

    Args:
      history: tokens so far, before position `end`; others are NOT_COUNTED.
      size: number of tokens n of an n-gram.
    """
    num_ngrams = history.shape[-1] - size + 1
    if num_ngrams <= 0:
        return jnp.zeros((*history.shape[:-1], vocab_size), bool)
    last = jax.lax.dynamic_slice_in_dim(
        history, jnp.maximum(end - size + 1, 0), size - 1, axis=-1
    )
    completion = history[..., size - 1 :]
    matches = completion != NOT_COUNTED
    for offset in range(size - 1):
        token = history[..., offset : offset + num_ngrams]
        matches &= (token == last[..., offset, None]) & (token != NOT_COUNTED)
    return _mark_tokens(completion, matches, vocab_size)


def penalize_tokens(
    history: Int[Array, "B N M"], penalty: float, logits: Float[Array, "B N V"]
) -> Float[Array, "B N V"]:
    """Returns logits with the repetition penalty on the tokens of a history."""
    occurred = _mark_tokens(history, history != NOT_COUNTED, logits.shape[-1])
    penalized = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(occurred, penalized, logits)


def _align_right(
    tokens: Int[Array, "B Q"], mask: Bool[Array, "B Q"]
) -> Int[Array, "B Q"]:
    """Moves valid tokens behind the others, which become NOT_COUNTED."""
    order = jnp.argsort(mask, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(mask, tokens, NOT_COUNTED), order, axis=1)


def _mark_tokens(
    tokens: Int[Array, "B N M"], where: Bool[Array, "B N M"], vocab_size: int
) -> Bool[Array, "B N V"]:
    """Returns the mask over the vocabulary of the tokens `where` is true for."""

    def mark(tokens, where):
        ids = jnp.where(where, tokens, vocab_size)  # out of bounds: dropped
        return jnp.zeros(vocab_size, bool).at[ids].set(True, mode="drop")

    return jax.vmap(jax.vmap(mark))(tokens, where)
