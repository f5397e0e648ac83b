"""Constraints on the hypotheses of a search: lengths, prefixes, forbidden tokens."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

NOT_FORCED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class DecodingConstraints:
    """Rules for the tokens that may come next in each example.

    A hypothesis begins with the prefix of its example and has its end symbol within
    the length limit. The prefix takes precedence over the limit, and both over the
    other rules.

    Attributes:
      length_limits: maximum number of tokens of each example, the end symbol
        included; clipped to `max_steps`.
      max_steps: number of decoding steps (L).
      min_length: minimum number of tokens before the end symbol.
      forbidden: token ids that only a prefix may contain.
      prefix: token ids that hypotheses begin with, and their valid mask; P < L.

    Raises:
      ValueError: the prefix leaves no room for an end symbol.
    """

    length_limits: Int[Array, "B"]
    max_steps: int
    eos_id: int
    min_length: int = 0
    forbidden: tuple[int, ...] = ()
    prefix: tuple[Int[Array, "B P"], Bool[Array, "B P"]] | None = None

    def __post_init__(self):
        if self.prefix is not None and self.prefix[0].shape[1] >= self.max_steps:
            raise ValueError(
                f"A prefix of {self.prefix[0].shape[1]} tokens leaves no room for an "
                f"end symbol; it must be shorter than max_steps={self.max_steps}"
            )

    @property
    def max_length(self) -> Int[Array, "B"]:
        """Maximum number of tokens of each example, prefix and end symbol included."""
        limits = jnp.clip(self.length_limits, 1, self.max_steps)
        if self.prefix is None:
            return limits
        mask = self.prefix[1]
        lengths = jnp.where(mask, jnp.arange(1, mask.shape[1] + 1), 0).max(axis=1)
        return jnp.maximum(limits, lengths + 1)

    def forced_token(self, step: Int[Array, ""]) -> Int[Array, "B"]:
        """Returns the only token allowed at a step (from 0), or NOT_FORCED."""
        at_limit = step >= jnp.clip(self.length_limits, 1, self.max_steps) - 1
        final = jnp.where(at_limit, self.eos_id, NOT_FORCED)
        if self.prefix is None:
            return final
        tokens, mask = self.prefix
        padding = ((0, 0), (0, self.max_steps - tokens.shape[1]))
        forced = jnp.pad(
            jnp.where(mask, tokens, NOT_FORCED), padding, constant_values=NOT_FORCED
        )[:, step]
        return jnp.where(forced == NOT_FORCED, final, forced)

    def allowed(self, step: Int[Array, ""], vocab_size: int) -> Bool[Array, "B V"]:
        """Returns the mask of tokens allowed at a step (from 0)."""
        tokens = jnp.arange(vocab_size)
        free = jnp.ones(vocab_size, bool)
        for token in self.forbidden:
            free &= tokens != token
        free &= (tokens != self.eos_id) | (step >= self.min_length)
        forced = self.forced_token(step)[:, None]
        return jnp.where(forced == NOT_FORCED, free, tokens == forced)
