"""Attention: a distribution over keys, and the average of the values it weighs.

Masks are True where a query may look; a query that may look nowhere gets zeros.
Keys and values stand as [B, H, S, Dh], the order in which a product reads them,
so that a memory is never rearranged. Where a token at a time meets them keys stand
turned, [B, H, Dh, S]: XLA for CPUs multiplies these with several queries in half of
the time, and with one in the same.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.decode_attention import StepMask, StepQueries, decode_attention
from models.attention.dispatch import select_implementation
from models.attention.dot_product import AttentionInputs, attention_logits
from models.attention.kv_blocks import KVBlocks, TransposedKV
from models.attention.positions import apply_rope
from models.common.dropout import Dropout, is_zero_rate
from models.common.dtypes import DType, Scalar
from models.common.layers import Dense, Embedding, Initializer, normal
from models.common.masks import masked_softmax

KV = tuple[Float[Array, "B H S Dh"], Float[Array, "B H S Dh"]]
SourceKV = tuple[Float[Array, "B H E Dh"], Float[Array, "B H E Dh"]]
RelativeBiases = tuple[Float[Array, "H Dh"], Float[Array, "H Dh"]]


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

        softmax(Q K^T / sqrt(d_k)) V a head, then W^O over all heads

    Keys and values come in projected (`project`), so that a decoder projects
    each position once.

    Attributes:
      heads: H.
      width: D, of what comes out.
      head_dim: Dh of a query, a key and a value.
      share_qkv: one matrix makes queries, keys and values.
      implementation: one of `models.attention.dispatch.IMPLEMENTATIONS`.
    """

    heads: int
    width: int
    head_dim: int
    dropout: Scalar
    use_bias: bool = True
    share_qkv: bool = False
    implementation: str = "xla"
    kernel_init: Initializer | None = None

    def setup(self):
        split = (self.heads, self.head_dim)
        options = {"use_bias": self.use_bias, "kernel_init": self.kernel_init}
        axes = ("embed", "heads", "kv")
        self.query = Dense(split, axes, **options)
        if not self.share_qkv:
            self.key = Dense(split, axes, **options)
            self.value = Dense(split, axes, **options)
        self.output = Dense(
            (self.width,), ("heads", "kv", "embed"), num_inputs=2, **options
        )
        self.drop = Dropout(self.dropout)

    def project_query(self, x: Float[Array, "B T D"]) -> Float[Array, "B H T Dh"]:
        """The queries of a content."""
        return jnp.swapaxes(self.query(x), 1, 2)

    def project_kv(self, content: Float[Array, "B S D"]) -> KV:
        """The keys and values of a content."""
        if self.share_qkv:
            return self.project_query(content), self.project_query(content)
        keys, values = self.key(content), self.value(content)
        return jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        projected: KV,
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What each position of x finds among the keys."""
        keys, values = projected
        return self._attend(
            AttentionInputs(self.project_query(x), keys), values, mask, train=train
        )

    def decode_cross_attention(
        self,
        x: Float[Array, "B N D"],
        turned: TransposedKV,
        mask: Bool[Array, "#B #N S"],
    ) -> Float[Array, "B N D"]:
        """What a token of each of N hypotheses finds among keys that all share."""
        keys, values = turned
        scores = jnp.einsum("BHNK,BHKS->BHNS", self.project_query(x), keys)
        weights = self.attention_weights(scores, mask, train=False)
        return self.project_output(jnp.einsum("BHNS,BHSK->BHNK", weights, values))

    def _attend(
        self,
        inputs: AttentionInputs,
        values: Float[Array, "B H S Dh"],
        mask: Bool[Array, "#B #T S"],
        *,
        ring_start: Int[Array, ""] | None = None,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What all heads find, through W^O; weights are made if they are asked for.

        Args:
          mask: of keys in order.
          ring_start: slot of the oldest key, where slots are a ring; else the first.
        """
        if ring_start is not None:
            mask = jnp.roll(mask, ring_start, axis=-1)
        if ring_start is not None or self.is_mutable_collection("intermediates"):
            scores = attention_logits(inputs, ring_start)
            weights = self.attention_weights(scores, mask, train=train)
            return self.project_output(jnp.einsum("BHTS,BHSK->BHTK", weights, values))
        keys = self.drop.keys() if train and not is_zero_rate(self.dropout) else None
        attended = select_implementation(self.implementation)
        return self.project_output(
            attended(inputs, values, mask[:, None], keys, self.dropout)
        )

    def attention_weights(
        self,
        scores: Float[Array, "B H T S"],
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B H T S"]:
        """From raw scores to weights: scale, softmax, dropout."""
        weights = masked_softmax(scores * self.head_dim**-0.5, mask[:, None])
        self.sow("intermediates", "attention", weights)
        return self.drop(weights, deterministic=not train)

    def project_output(self, found: Float[Array, "B H T Dh"]) -> Float[Array, "B T D"]:
        """W^O over what all heads found."""
        return self.output(jnp.swapaxes(found, 1, 2))


class SelfAttention(MultiHeadAttention):
    """Multi-head attention within a text, which may know how far tokens are apart.

        relative (Dai et al. 2019, section 3.3):
            A_ij = (W_q x_i + u) . W_kE x_j  +  (W_q x_i + v) . W_kR R_(i-j)
        shaw (Shaw et al. 2018, eq. 4, w^K clipped at a distance):
            A_ij = W_q x_i . (W_k x_j + w_(j-i))
        rotary (Su et al. 2021): queries and keys turned by their places

    Deviation from Shaw et al.: no such vectors on the side of the values, which
    the paper's table 3 finds to be worth nothing once the keys have them.

    Attributes:
      position_encoding: one of `positions.SCHEMES`; the absolute ones change nothing
        here.
      max_distance: k at which shaw clips.
      untie_biases: whether u and v are this layer's; else they are handed in.
      dtype: of projected distances; that of the queries that they meet.
    """

    position_encoding: str = "none"
    max_distance: int = 1
    untie_biases: bool = False
    dtype: DType = jnp.float32

    def setup(self):
        super().setup()
        shape = (self.heads, self.head_dim)
        init = self.kernel_init or normal(0.02)
        if self.position_encoding == "relative":
            self.position_key = Dense(
                shape, ("embed", "heads", "kv"), use_bias=False, kernel_init=init
            )
        if self.position_encoding == "shaw":
            rows = 2 * self.max_distance + 1
            self.distance_embedding = Embedding(rows, self.head_dim, init, (None, "kv"))
        if self.untie_biases:
            self.biases = make_relative_biases(self, init, shape)

    def project_relative_positions(
        self, distances: Int[Array, "C"], encodings: Float[Array, "C D"] | None
    ) -> Float[Array, "C H Dh"] | None:
        """W_kR R or w for a row of distances i - j; None if they do not matter."""
        if self.position_encoding == "relative":
            return self.position_key(encodings.astype(self.dtype))
        if self.position_encoding == "shaw":
            last = self.max_distance
            one = self.distance_embedding(
                jnp.clip(-distances, -last, last) + last, self.dtype
            )
            return jnp.repeat(one[:, None], self.heads, axis=1)
        return None

    def apply_rope(
        self, x: Float[Array, "B H S Dh"], places: Int[Array, "#B #S"]
    ) -> Float[Array, "B H S Dh"]:
        """Queries or keys as they are compared."""
        return apply_rope(x, places) if self.position_encoding == "rotary" else x

    def project_kv(
        self, content: Float[Array, "B S D"], places: Int[Array, "#B #S"]
    ) -> KV:
        """Keys, at their places, and values."""
        keys, values = super().project_kv(content)
        return self.apply_rope(keys, places), values

    def _content_and_position_queries(self, x, places, biases):
        """Queries for contents and for distances."""
        query = self.apply_rope(self.project_query(x), places)
        if self.position_encoding != "relative":
            return query, query
        u, v = self.biases if self.untie_biases else biases
        u, v = u.astype(query.dtype), v.astype(query.dtype)
        return query + u[:, None], query + v[:, None]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        kept: KV,
        mask: Bool[Array, "#B #T S"],
        places: Int[Array, "#B #T"],
        distances: Float[Array, "C H Dh"] | None = None,
        biases: RelativeBiases | None = None,
        *,
        ring_start: Int[Array, ""] | None = None,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """What each token finds.

        Args:
          distances: in the order `relative_shift` describes.
          ring_start: slot of the oldest key, where slots are a ring; else the first.
        """
        if ring_start is not None and x.shape[1] > 2 * self.head_dim:
            # What is smaller turns: keys and values, or the scores of all queries.
            kept = tuple(jnp.roll(slots, -ring_start, axis=2) for slots in kept)
            ring_start = None
        keys, values = kept
        content, position = self._content_and_position_queries(x, places, biases)
        if distances is None:
            position = None
        inputs = AttentionInputs(content, keys, position, distances)
        return self._attend(inputs, values, mask, ring_start=ring_start, train=train)

    def step(
        self,
        x: Float[Array, "B N D"],
        past: TransposedKV,
        written: KVBlocks,
        view: StepMask,
        biases: RelativeBiases | None = None,
    ) -> Float[Array, "B N D"]:
        """What one token of each of N hypotheses finds."""
        tokens = StepQueries(
            *self._content_and_position_queries(x, view.positions, biases)
        )
        return self.project_output(decode_attention(tokens, past, written, view))


def make_relative_biases(
    module: nn.Module, init: Initializer, shape: tuple[int, int]
) -> RelativeBiases:
    """Parameters u (content) and v (position) of a module."""
    init = nn.with_logical_partitioning(init, ("heads", "kv"))
    return (
        module.param("content_bias", init, shape),
        module.param("position_bias", init, shape),
    )
