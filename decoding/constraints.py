"""What a hypothesis may hold, whoever searches for it."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

NOT_FORCED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class DecodingConstraints:
    """Which tokens may come next in each row.

    A hypothesis begins with its row's prefix and ends with `end`, at the latest at
    the row's limit. Where two rules meet, the prefix comes first, then the limit.

    Attributes:
      limits: most tokens of a row, its end included; never more than `max_steps`.
      max_steps: L.
      min_length: fewest tokens before the end.
      forbidden: tokens that are never chosen, unless a prefix holds them.
      prefix: tokens that hypotheses begin with, and which of them count; P < L.

    Raises ValueError for a prefix that leaves no room for an end.
    """

    limits: Int[Array, "B"]
    max_steps: int
    end: int
    min_length: int = 0
    forbidden: tuple[int, ...] = ()
    prefix: tuple[Int[Array, "B P"], Bool[Array, "B P"]] | None = None

    def __post_init__(self):
        if self.prefix is not None and self.prefix[0].shape[1] >= self.max_steps:
            raise ValueError(
                f"a prefix of {self.prefix[0].shape[1]} tokens leaves no room for an "
                f"end in max_steps={self.max_steps}"
            )

    @property
    def longest(self) -> Int[Array, "B"]:
        """Most tokens a row can come to, its end included."""
        limits = jnp.clip(self.limits, 1, self.max_steps)
        if self.prefix is None:
            return limits
        mask = self.prefix[1]
        lengths = jnp.where(mask, jnp.arange(1, mask.shape[1] + 1), 0).max(axis=1)
        return jnp.maximum(limits, lengths + 1)

    def only(self, number: Int[Array, ""]) -> Int[Array, "B"]:
        """The one token a row may take as its `number`-th from 0, or NOT_FORCED."""
        at_limit = number >= jnp.clip(self.limits, 1, self.max_steps) - 1
        last = jnp.where(at_limit, self.end, NOT_FORCED)
        if self.prefix is None:
            return last
        tokens, mask = self.prefix
        room = ((0, 0), (0, self.max_steps - tokens.shape[1]))
        forced = jnp.pad(
            jnp.where(mask, tokens, NOT_FORCED), room, constant_values=NOT_FORCED
        )[:, number]
        return jnp.where(forced == NOT_FORCED, last, forced)

    def allowed(self, number: Int[Array, ""], vocab_size: int) -> Bool[Array, "B V"]:
        """Which tokens may be a row's `number`-th from 0."""
        tokens = jnp.arange(vocab_size)
        free = jnp.ones(vocab_size, bool)
        for token in self.forbidden:
            free &= tokens != token
        free &= (tokens != self.end) | (number >= self.min_length)
        only = self.only(number)[:, None]
        return jnp.where(only == NOT_FORCED, free, tokens == only)
