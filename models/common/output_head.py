"""Output distribution of a model: from hidden states to probabilities of tokens."""

import pkgutil

import flax.linen as nn
from jaxtyping import Array, Float, Int

from models.common.blockwise_cross_entropy import LogProbAndLogZ, blockwise_log_prob
from models.common.dtypes import Scalar
from models.common.layers import Embedding, Initializer, zeros
from models.common.matmul import make_logits

ADAPTIVE_HEAD = "models.common.adaptive_softmax:AdaptiveHead"


class OutputHead(nn.Module):
    """Softmax over a vocabulary of V tokens.

    Attributes:
      width: size of the hidden states (D).
      embedding: table of input embeddings to use as weights (Press and Wolf 2017);
        None: the head has its own table.
    """

    vocab_size: int
    width: int
    init: Initializer
    embedding: Embedding | None = None

    def setup(self):
        if self.embedding is None:
            init = nn.with_logical_partitioning(self.init, ("vocab", "embed"))
            self.table = self.param("table", init, (self.vocab_size, self.width))
        else:
            self.table = self.embedding.table
        init = nn.with_logical_partitioning(zeros, ("vocab",))
        self.bias = self.param("bias", init, (self.vocab_size,))

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Computes unnormalised log probabilities in float32."""
        return make_logits(hidden, self.table, self.bias)

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> Float[Array, "B T"]:
        """Computes the log probability of labels, in nats.

        With label smoothing (Szegedy et al. 2016) the label holds 1 - smoothing of the
        mass, and all V tokens share the rest:

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
        """Computes `log_prob` and log Z = log sum_v exp(logit_v) in one pass."""
        return blockwise_log_prob(hidden, labels, self.table, self.bias, smoothing)


def make_head(config, vocab_size: int, embedding: nn.Module) -> nn.Module:
    """Returns the output head that suits a token embedding, and is perhaps tied to it.

    Its hidden states are `embedding.width` wide.

    Args:
      config: a model's Config.
    """
    tied = embedding if config.tie_embeddings else None
    if isinstance(embedding, Embedding):
        return OutputHead(vocab_size, embedding.width, embedding.init, tied)
    keys = ("embedding_width", "cutoffs", "div_val", "projection_init", "init")
    return pkgutil.resolve_name(ADAPTIVE_HEAD)(
        vocab_size,
        embedding.width,
        **{key: getattr(embedding, key) for key in keys},
        embedding=tied,
        tie_projections=config.tie_projections and tied is not None,
    )
