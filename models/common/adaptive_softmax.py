"""Adaptive embeddings and softmax: rare words have smaller embeddings.

The vocabulary is sorted by frequency and split into clusters. Cluster 0 is the
shortlist of frequent words, the others are the tail. Embeddings of cluster i have
width E // div_val^i, on the input and the output side (Baevski and Auli 2019), as in
Transformer-XL (Dai et al. 2019).
"""

from itertools import pairwise

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from models.common.blockwise_cross_entropy import LogProbAndLogZ, blockwise_log_prob
from models.common.dtypes import DType, Scalar
from models.common.layers import Initializer, zeros
from models.common.matmul import make_logits
from utils.errors import UserError


def cluster_bounds(
    vocab_size: int, cutoffs: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns the first word and the end of each cluster.

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


def check_clusters(cutoffs: tuple, embedding_width: int, div_val: int) -> None:
    """Raises ValueError or UserError for clusters that no vocabulary can have."""
    if not all(isinstance(cut, int) for cut in cutoffs):
        raise ValueError(f"model.cutoffs={cutoffs} must be integers")
    cluster_bounds(max(cutoffs, default=0) + 1, cutoffs)
    cluster_widths(embedding_width, div_val, len(cutoffs) + 1)


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
        bounds = cluster_bounds(self.vocab_size, self.cutoffs)
        return tuple(stop - start for start, stop in bounds)

    @property
    def widths(self) -> tuple[int, ...]:
        return cluster_widths(self.embedding_width, self.div_val, len(self.cutoffs) + 1)

    @property
    def has_projections(self) -> bool:
        """Whether embeddings are projected: as in the authors' code, also if E = D."""
        return self.div_val > 1 or self.embedding_width != self.width

    def make_param(
        self, name: str, init: Initializer, axes: tuple[str | None, ...], shape
    ) -> Array:
        return self.param(name, nn.with_logical_partitioning(init, axes), shape)

    def make_embeddings(self) -> tuple[Float[Array, "..."], ...]:
        """Creates the embeddings of each cluster: `table_0`, `table_1`, ..."""
        return tuple(
            self.make_param(f"table_{i}", self.init, ("vocab", "embed"), shape)
            for i, shape in enumerate(zip(self.sizes, self.widths, strict=True))
        )

    def make_projections(self, number: int) -> tuple[Float[Array, "_ D"] | None, ...]:
        """Creates `projection_0`, ... of the first clusters; None without any."""
        if not self.has_projections:
            return (None,) * number
        init, axes = self.projection_init, (None, "embed")
        return tuple(
            self.make_param(f"projection_{i}", init, axes, (width, self.width))
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
        num_clusters = len(self.sizes)
        own = 1 if self.div_val == 1 else num_clusters
        self.projections = self.make_projections(own) * (num_clusters // own)

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
        own = 1 if self.tie_projections else len(self.sizes)
        if self.embedding is None:
            self.tables = self.make_embeddings()
        else:
            self.tables = self.embedding.tables
        tied = self.embedding.projections[own:] if self.tie_projections else ()
        self.projections = self.make_projections(own) + tied
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

    def _softmax_inputs(self, hidden):
        """Returns (P_i h, T_i, b_i) of p_0, with columns of tail clusters, p_1, ..."""
        tables, biases = [*self.tables], [*self.biases]
        if self.cutoffs:
            tables[0] = jnp.concatenate([tables[0], self.cluster_table])
            biases[0] = jnp.concatenate([biases[0], self.cluster_bias])
        projected = [
            hidden if matrix is None else hidden @ matrix.astype(hidden.dtype).T
            for matrix in self.projections
        ]
        return list(zip(projected, tables, biases, strict=True))

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Computes normalised log probabilities of all words in float32."""
        softmaxes = self._softmax_inputs(hidden)
        first, *tails = (nn.log_softmax(make_logits(*each)) for each in softmaxes)
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

        def log_prob(softmax, entries):
            projected, table, bias = softmax
            return blockwise_log_prob(projected, entries, table, bias, 0.0)[0]

        first, *tails = self._softmax_inputs(hidden)
        number = sum((labels >= cut for cut in self.cutoffs), jnp.zeros_like(labels))
        entries = jnp.where(number == 0, labels, self.sizes[0] + number - 1)
        total = log_prob(first, entries)
        for i, (tail, start) in enumerate(zip(tails, self.cutoffs, strict=True), 1):
            inside = number == i
            within = log_prob(tail, jnp.where(inside, labels - start, 0))
            total += jnp.where(inside, within, 0)
        return total

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
        [(projected, table, bias)] = self._softmax_inputs(hidden)
        return blockwise_log_prob(projected, labels, table, bias, smoothing)
