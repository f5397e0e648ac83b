"""The output distribution: from hidden states to probabilities of tokens.

A loss over a large vocabulary is where a model's memory goes, so `log_prob`
works on blocks of tokens and computes a block's logits again in the backward
pass: no array of shape [B, T, V] is ever stored.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from models.layers import Embedding, Initializer, zeros
from models.precision import make_logits

BLOCK_ENTRIES = 2**22  # logits in a block: 16 MiB of float32


Scores = tuple[Float[Array, "B T"], Float[Array, "B T"]]


def block_scores(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: float,
) -> Scores:
    """Log probability of each label and log Z; see `Head.log_prob`."""
    logits = make_logits(hidden, table, bias)
    total = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * logits.mean(axis=-1)
    return chosen - total, total


def block_log_prob(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: float,
) -> Float[Array, "B T"]:
    """Log probability of each label; see `Head.log_prob`."""
    return block_scores(hidden, labels, table, bias, smoothing)[0]


def in_blocks(
    one: Callable,
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    entries_per_token: int,
) -> Float[Array, "B T"] | Scores:
    """`one(hidden, labels)` over blocks of about BLOCK_ENTRIES logits.

    A block is some columns of all rows, so that rows spread over devices stay
    where they are.

    Args:
      one: gives a number a token, or some; it is called again in the backward pass.
      entries_per_token: how many logits `one` makes for a token.
    """
    rows, length, width = hidden.shape
    size = max(1, BLOCK_ENTRIES // (rows * entries_per_token))
    if length <= size:
        return one(hidden, labels)
    blocks = -(-length // size)
    size = -(-length // blocks)
    spare = blocks * size - length
    hidden = jnp.pad(hidden, ((0, 0), (0, spare), (0, 0)))
    labels = jnp.pad(labels, ((0, 0), (0, spare)))
    columns = (
        jnp.moveaxis(hidden.reshape(rows, blocks, size, width), 1, 0),
        jnp.moveaxis(labels.reshape(rows, blocks, size), 1, 0),
    )
    found = jax.lax.map(jax.checkpoint(lambda block: one(*block)), columns)

    def joined(found):
        return jnp.moveaxis(found, 0, 1).reshape(rows, blocks * size)[:, :length]

    return jax.tree.map(joined, found)


def blocked_log_prob(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: float,
) -> Float[Array, "B T"]:
    """`block_log_prob` in blocks."""
    return _blocked(block_log_prob, hidden, labels, table, bias, smoothing)


def blocked_scores(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    table: Float[Array, "V D"],
    bias: Float[Array, "V"],
    smoothing: float,
) -> Scores:
    """`block_scores` in blocks."""
    return _blocked(block_scores, hidden, labels, table, bias, smoothing)


def _blocked(score, hidden, labels, table, bias, smoothing):
    def one(hidden, labels):
        return score(hidden, labels, table, bias, smoothing)

    return in_blocks(one, hidden, labels, len(table))


class Head(nn.Module):
    """A softmax over V tokens.

    Attributes:
      width: D of the hidden states.
      embedding: the table that is also this layer's weights (Press and Wolf
        2017); with None the head has its own.
    """

    vocab_size: int
    width: int
    init: Initializer
    embedding: Embedding | None = None

    def setup(self):
        if self.embedding is None:
            self.own_table = self.param(
                "table",
                nn.with_logical_partitioning(self.init, ("vocab", "embed")),
                (self.vocab_size, self.width),
            )
        self.bias = self.param(
            "bias",
            nn.with_logical_partitioning(zeros, ("vocab",)),
            (self.vocab_size,),
        )

    @property
    def table(self) -> Float[Array, "V D"]:
        """The weights: a row a token."""
        return self.own_table if self.embedding is None else self.embedding.table

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Unnormalised log probabilities, float32."""
        return make_logits(hidden, self.table, self.bias)

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Float[Array, "B T"]:
        """Log probability of the labels, in nats.

        With label smoothing (Szegedy et al. 2016) the label holds 1 - smoothing
        of the mass and all V tokens share the rest:

            (1 - smoothing) log p(y) + smoothing / V * sum_v log p(v)
        """
        return blocked_log_prob(hidden, labels, self.table, self.bias, smoothing)

    def scores(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Scores:
        """What `log_prob` gives and log Z = log sum_v exp(logit_v), from one pass."""
        return blocked_scores(hidden, labels, self.table, self.bias, smoothing)


class Predictor(nn.Module):
    """A model that owns an output distribution: its `setup` makes a `head`."""

    def evaluation_carry(self, batch_size: int, segment_length: int) -> PyTree:
        """What an evaluation finds that reads segments of so many tokens.

        It may hold what fits one set of parameters only.
        """
        return self.initial_carry(batch_size, train=False)

    def prepare(self, carry: PyTree) -> PyTree:
        """Collections that spare an evaluation what depends on parameters alone."""
        return {}

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Unnormalised log probabilities of the next token, float32."""
        return self.head.logits(hidden)

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Float[Array, "B T"]:
        """Log probability of the labels in nats; see `Head.log_prob`."""
        return self.head.log_prob(hidden, labels, smoothing=smoothing)

    def scores(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Scores:
        """What `log_prob` gives and log Z; see `Head.scores`."""
        return self.head.scores(hidden, labels, smoothing=smoothing)
