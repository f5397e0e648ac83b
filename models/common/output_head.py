"""The output distribution: from hidden states to probabilities of tokens."""

import flax.linen as nn
from jaxtyping import Array, Float, Int, PyTree

from models.common.blockwise_cross_entropy import LogProbAndLogZ, blockwise_log_prob
from models.common.dtypes import Scalar, make_logits
from models.common.layers import Embedding, Initializer, zeros


class OutputHead(nn.Module):
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
        smoothing: Scalar = 0.0,
    ) -> Float[Array, "B T"]:
        """Log probability of the labels, in nats.

        With label smoothing (Szegedy et al. 2016) the label holds 1 - smoothing
        of the mass and all V tokens share the rest:

            (1 - smoothing) log p(y) + smoothing / V * sum_v log p(v)
        """
        return self.log_prob_and_log_z(hidden, labels, smoothing=smoothing)[0]

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> LogProbAndLogZ:
        """What `log_prob` gives and log Z = log sum_v exp(logit_v), from one pass."""
        return blockwise_log_prob(hidden, labels, self.table, self.bias, smoothing)


class SequenceModel(nn.Module):
    """A model that owns an output distribution: its `setup` makes a `head`."""

    def initial_eval_carry(self, batch_size: int, segment_length: int) -> PyTree:
        """What an evaluation finds that reads segments of so many tokens.

        It may hold what fits one set of parameters only.
        """
        return self.initial_carry(batch_size, train=False)

    def precompute(self, carry: PyTree) -> PyTree:
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
        smoothing: Scalar = 0.0,
    ) -> Float[Array, "B T"]:
        """Log probability of the labels in nats; see `OutputHead.log_prob`."""
        return self.head.log_prob(hidden, labels, smoothing=smoothing)

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> LogProbAndLogZ:
        """What `log_prob` gives and log Z; see `OutputHead.log_prob_and_log_z`."""
        return self.head.log_prob_and_log_z(hidden, labels, smoothing=smoothing)
