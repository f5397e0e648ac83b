"""Adaptive embeddings and softmax: rare words have smaller embeddings.

The vocabulary is sorted by frequency and split into clusters. Cluster 0 is the
shortlist of frequent words, the others are the tail. Embeddings of cluster i have
width E // div_val^i, on the input and the output side (Baevski and Auli 2019), as in
Transformer-XL (Dai et al. 2019).
"""

from itertools import pairwise
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.common.blockwise_cross_entropy import LogProbAndLogZ, blockwise_log_prob
from models.common.dtypes import DType, Scalar, make_logits
from models.common.layers import Initializer, zeros
from utils.errors import UserError

Axes = tuple[str | None, ...]


def cluster_bounds(
    vocab_size: int, cutoffs: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns the first word and the end of each cluster; one without cut-offs.

    Raises:
      UserError: the cut-offs leave a cluster empty.
    """
    named = f"model.cutoffs={tuple(cutoffs)}"
    if any(left >= right for left, right in pairwise(cutoffs)):
        raise UserError(f"{named}: cut-offs must increase")
    if cutoffs and cutoffs[0] < 1:
        raise UserError(f"{named}: they must be 1 or more")
    if cutoffs and cutoffs[-1] >= vocab_size:
        raise UserError(f"{named}: they must be below the vocabulary size {vocab_size}")
    return tuple(pairwise((0, *cutoffs, vocab_size)))


def cluster_widths(
    embedding_width: int, div_val: int, num_clusters: int
) -> tuple[int, ...]:
    """Returns the width of the embeddings of each cluster i, E // div_val^i.

    Raises:
      UserError: the width of the last cluster is 0.
    """
    smallest = div_val ** (num_clusters - 1)
    if embedding_width < smallest:
        raise UserError(
            f"model.embedding_width={embedding_width}: {num_clusters} clusters with "
            f"model.div_val={div_val} need {smallest} or more"
        )
    return tuple(embedding_width // div_val**i for i in range(num_clusters))


class ClusteredVocab(nn.Module):
    """Clusters of a vocabulary and their parameters, for either side of a model.

    Attributes:
      width: size of the hidden states (D).
      embedding_width: size of the shortlist's embeddings (E).
      cutoffs: first word of each tail cluster.
      div_val: factor by which embeddings are narrower than those of the cluster
        before. With 1, and E = D, there are no projections.
      projection_init: initializer of projections from embeddings to hidden states.
      init: initializer of embeddings.
    """

    vocab_size: int
    width: int
    embedding_width: int
    cutoffs: tuple[int, ...]
    div_val: int
    projection_init: Initializer
    init: Initializer

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of words in each cluster."""
        spans = cluster_bounds(self.vocab_size, self.cutoffs)
        return tuple(stop - start for start, stop in spans)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the embeddings of each cluster."""
        return cluster_widths(self.embedding_width, self.div_val, len(self.cutoffs) + 1)

    @property
    def has_projections(self) -> bool:
        """Whether embeddings are projected: as in the authors' code, also if E = D."""
        return self.div_val > 1 or self.embedding_width != self.width

    def make_param(self, name: str, init: Initializer, axes: Axes, shape) -> Array:
        """Creates a parameter with logical axes."""
        return self.param(name, nn.with_logical_partitioning(init, axes), shape)

    def make_embeddings(self) -> tuple[Float[Array, "..."], ...]:
        """Creates the embeddings of each cluster: `table_0`, `table_1`, ..."""
        shapes = zip(self.sizes, self.widths, strict=True)
        return tuple(
            self.make_param(f"table_{i}", self.init, ("vocab", "embed"), shape)
            for i, shape in enumerate(shapes)
        )

    def make_projections(self, number: int) -> tuple[Float[Array, "_ D"] | None, ...]:
        """Creates `projection_0`, ... of the first clusters; None without any."""
        if not self.has_projections:
            return (None,) * number
        return tuple(
            self.make_param(
                f"projection_{i}",
                self.projection_init,
                (None, "embed"),
                (width, self.width),
            )
            for i, width in enumerate(self.widths[:number])
        )


class AdaptiveEmbedding(ClusteredVocab):
    """Adaptive input representations (Baevski and Auli 2019, section 3).

        E(w) = T_i[w - start_i] P_i      for w in cluster i

    Parameters: `table_i` [words of cluster i, E // div_val^i] and `projection_i`
    [E // div_val^i, D]; with div_val = 1 all clusters share `projection_0`. The
    caller scales by sqrt(D). A token outside the vocabulary is the zero vector.
    """

    def setup(self):
        self.tables = self.make_embeddings()
        number = len(self.sizes)
        if self.div_val == 1:
            self.projections = self.make_projections(1) * number
        else:
            self.projections = self.make_projections(number)

    def __call__(
        self, tokens: Int[Array, "..."], dtype: DType = jnp.float32
    ) -> Float[Array, "... D"]:
        # The vectors of words of other clusters are zero, so clusters add up.
        vectors = [
            table.at[tokens - start]
            .get(mode="fill", fill_value=0, wrap_negative_indices=False)
            .astype(dtype)
            for table, start in zip(self.tables, (0, *self.cutoffs), strict=True)
        ]
        if not self.has_projections:
            return sum(vectors)
        if self.div_val == 1:
            return sum(vectors) @ self.projections[0].astype(dtype)
        projections = (matrix.astype(dtype) for matrix in self.projections)
        return sum(map(jnp.matmul, vectors, projections))


class ClusterSoftmax(NamedTuple):
    """Softmax over one cluster, softmax(T P h + b).

    Attributes:
      projection: P, in the embedding's shape, [width of the cluster, D], or None.
      table: T, the output embeddings of the cluster.
      bias: b, of each word.
    """

    projection: Float[Array, "E D"] | None
    table: Float[Array, "N E"]
    bias: Float[Array, "N"]

    def project(self, hidden: Float[Array, "... D"]) -> Float[Array, "... E"]:
        """Projects hidden states to the width of the cluster, P h."""
        if self.projection is None:
            return hidden
        return hidden @ self.projection.astype(hidden.dtype).T

    def log_probs(self, hidden: Float[Array, "... D"]) -> Float[Array, "... N"]:
        """Computes log probabilities of all entries in float32."""
        logits = make_logits(self.project(hidden), self.table, self.bias)
        return nn.log_softmax(logits)

    def log_prob(
        self, hidden: Float[Array, "B T D"], entries: Int[Array, "B T"]
    ) -> Float[Array, "B T"]:
        """Computes the log probability of one entry for each token, in float32."""
        return self.log_prob_and_log_z(hidden, entries)[0]

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        entries: Int[Array, "B T"],
        smoothing: Scalar = 0.0,
    ) -> LogProbAndLogZ:
        """Computes `log_prob`, with label smoothing, and log Z."""
        hidden = self.project(hidden)
        return blockwise_log_prob(hidden, entries, self.table, self.bias, smoothing)


def adaptive_log_prob(
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    softmaxes: tuple[ClusterSoftmax, ...],
    cutoffs: tuple[int, ...],
) -> Float[Array, "B T"]:
    """Computes the log probability of each label; see `AdaptiveHead`."""
    first, *tails = softmaxes
    shortlist = len(first.bias) - len(tails)
    number = sum((labels >= cutoff for cutoff in cutoffs), jnp.zeros_like(labels))
    entries = jnp.where(number == 0, labels, shortlist + number - 1)
    total = first.log_prob(hidden, entries)
    for i, (tail, start) in enumerate(zip(tails, cutoffs, strict=True), start=1):
        inside = number == i
        within = tail.log_prob(hidden, jnp.where(inside, labels - start, 0))
        total += jnp.where(inside, within, 0)
    return total


class AdaptiveHead(ClusteredVocab):
    """Adaptive softmax (Grave et al. 2017), projected as in Dai et al. 2019.

        log p(w) = log p_0(w)                              w in the shortlist
        log p(w) = log p_0(cluster i) + log p_i(w)         w in tail cluster i
        p_0 = softmax over [words of the shortlist ; tail clusters 1, 2, ...]
        p_i = softmax(T_i P_i h + b_i)

    Every cluster is computed for every token, because shapes are static; the authors'
    code gathers the tokens of a cluster first, with the same result. It stores the
    columns of tail clusters in reverse order, cluster 1 last: importing its weights
    reverses `cluster_table` and `cluster_bias`.

    Parameters: `table_i` and `bias_i` of each cluster's words, `projection_i`
    [E // div_val^i, D], `cluster_table` [tail clusters, E] and `cluster_bias`.

    Attributes:
      embedding: input embeddings to use as weights (Press and Wolf 2017); None: the
        head has its own.
      tie_projections: whether tail clusters use the embedding's projections,
        transposed; the shortlist always has its own.
    """

    embedding: AdaptiveEmbedding | None = None
    tie_projections: bool = False

    def setup(self):
        if self.tie_projections and self.embedding is None:
            raise UserError(
                "model.tie_projections=True: it needs tied embeddings; "
                "set it to False or model.tie_embeddings=True"
            )
        if self.embedding is None:
            self.own_tables = self.make_embeddings()
        own = 1 if self.tie_projections else len(self.sizes)
        self.own_projections = self.make_projections(own)
        self.biases = tuple(
            self.make_param(f"bias_{i}", zeros, ("vocab",), (size,))
            for i, size in enumerate(self.sizes)
        )
        if self.cutoffs:
            shape = (len(self.cutoffs), self.embedding_width)
            self.cluster_table = self.make_param(
                "cluster_table", self.init, (None, "embed"), shape
            )
            self.cluster_bias = self.make_param(
                "cluster_bias", zeros, (None,), shape[:1]
            )

    @property
    def tables(self) -> tuple[Float[Array, "..."], ...]:
        """Output embeddings of each cluster, a row for each word."""
        return self.own_tables if self.embedding is None else self.embedding.tables

    @property
    def projections(self) -> tuple[Float[Array, "_ D"] | None, ...]:
        """Projection of each cluster, or None."""
        own = self.own_projections
        if not self.tie_projections:
            return own
        return own + self.embedding.projections[len(own) :]

    @property
    def softmaxes(self) -> tuple[ClusterSoftmax, ...]:
        """Softmaxes p_0, with the columns of tail clusters, and p_1, p_2, ..."""
        parts = zip(self.projections, self.tables, self.biases, strict=True)
        first, *tails = (ClusterSoftmax(*part) for part in parts)
        if self.cutoffs:
            first = first._replace(
                table=jnp.concatenate([first.table, self.cluster_table]),
                bias=jnp.concatenate([first.bias, self.cluster_bias]),
            )
        return first, *tails

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Computes normalised log probabilities of all words in float32."""
        first, *tails = (softmax.log_probs(hidden) for softmax in self.softmaxes)
        columns = first[..., self.sizes[0] :]
        words = [columns[..., i, None] + tail for i, tail in enumerate(tails)]
        return jnp.concatenate([first[..., : self.sizes[0]], *words], axis=-1)

    def log_prob(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> Float[Array, "B T"]:
        """Computes the log probability of labels, in nats.

        Raises:
          UserError: label smoothing over several clusters, which would need the log
            probabilities of all words.
        """
        if not self.cutoffs:
            return self.log_prob_and_log_z(hidden, labels, smoothing=smoothing)[0]
        if smoothing:
            raise UserError(
                f"label_smoothing={smoothing}: an adaptive softmax does not support "
                "it; set it to 0"
            )
        return adaptive_log_prob(hidden, labels, self.softmaxes, self.cutoffs)

    def log_prob_and_log_z(
        self,
        hidden: Float[Array, "B T D"],
        labels: Int[Array, "B T"],
        *,
        smoothing: Scalar = 0.0,
    ) -> LogProbAndLogZ:
        """Computes `log_prob` and log Z of a single cluster in one pass.

        Raises:
          UserError: there are several clusters, each with a Z of its own.
        """
        if self.cutoffs:
            raise UserError(
                "z_loss: an adaptive softmax has one Z for each cluster; set it to 0"
            )
        [only] = self.softmaxes
        return only.log_prob_and_log_z(hidden, labels, smoothing)
