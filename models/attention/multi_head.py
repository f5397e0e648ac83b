"""Multi-head attention and self-attention with position encodings.

Masks are True where a query attends to a key; a query that attends to no key gets
zeros. Keys and values are [B, H, S, K], the order that matrix products read, so that a
memory is never rearranged; decoding reads transposed keys (`kv_cache.py`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.dispatch import select_implementation
from models.attention.dot_product import AttentionInputs, dot_product_attention
from models.attention.kv_cache import (
    KV,
    KVBlocks,
    StepMask,
    TransposedKV,
    decode_attention,
)
from models.attention.positions import apply_rope
from models.common.dropout import Dropout
from models.common.dtypes import DType, Scalar
from models.common.layers import Dense, Embedding, Initializer, normal
from models.common.masks import masked_softmax

RelativeBiases = tuple[Float[Array, "H K"], Float[Array, "H K"]]


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

        head_h = softmax(Q_h K_h^T / sqrt(d_k)) V_h,   output = sum_h head_h W^O_h

    Keys and values are projected beforehand (`project_kv`), so that a decoder projects
    each position once.

    Attributes:
      heads: number of heads (H).
      width: size of the output (D).
      head_dim: size of a query, a key and a value (K).
      dropout: dropout rate of the attention weights.
      share_qkv: whether one matrix projects queries, keys and values.
      implementation: a key of `models.attention.dispatch.IMPLEMENTATIONS`.
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
        axes = ("heads", "kv", "embed")
        self.output = Dense((self.width,), axes, num_inputs=2, **options)
        self.drop = Dropout(self.dropout)

    def project_query(self, x: Float[Array, "B T D"]) -> Float[Array, "B H T K"]:
        return jnp.swapaxes(self.query(x), 1, 2)

    def project_kv(self, content: Float[Array, "B S D"]) -> KV:
        if self.share_qkv:
            return self.project_query(content), self.project_query(content)
        projected = (self.key(content), self.value(content))
        return tuple(jnp.swapaxes(each, 1, 2) for each in projected)

    def project_output(self, heads: Float[Array, "B H T K"]) -> Float[Array, "B T D"]:
        """Applies W^O to the outputs of all heads."""
        return self.output(jnp.swapaxes(heads, 1, 2))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        kv: KV,
        mask: Bool[Array, "#B #T S"],
        *,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """Computes attention of each position of x over projected keys and values."""
        inputs = AttentionInputs(self.project_query(x), *kv)
        return self._attend(inputs, mask, train=train)

    def _attend(self, inputs, mask, *, ring_start=None, train):
        """Computes attention, with sown weights if "intermediates" is mutable.

        The mask is that of keys in order, also with a ring buffer.
        """
        if ring_start is not None:
            mask = jnp.roll(mask, ring_start, axis=-1)
        dropout = self.drop.draw_mask(deterministic=not train)
        if ring_start is not None or self.is_mutable_collection("intermediates"):
            heads, weights = dot_product_attention(
                inputs, mask[:, None], dropout, ring_start
            )
            self.sow("intermediates", "attention", weights)
        else:
            attention = select_implementation(self.implementation)
            heads = attention(inputs, mask[:, None], dropout)
        return self.project_output(heads)

    def decode_cross_attention(
        self, x: Float[Array, "B N D"], kv: TransposedKV, mask: Bool[Array, "#B #N S"]
    ) -> Float[Array, "B N D"]:
        """Computes attention of one token of each beam over a source they share."""
        keys, values = kv
        logits = jnp.einsum("BHNK,BHKS->BHNS", self.project_query(x), keys)
        weights = masked_softmax(logits * self.head_dim**-0.5, mask[:, None])
        self.sow("intermediates", "attention", weights)
        return self.project_output(jnp.einsum("BHNS,BHSK->BHNK", weights, values))


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention with relative or rotary positions.

        relative (Dai et al. 2019, section 3.3):
            A_ij = (W_q x_i + u) . W_kE x_j  +  (W_q x_i + v) . W_kR R_(i-j)
        shaw (Shaw et al. 2018, eq. 4, w^K clipped at a maximum):
            A_ij = W_q x_i . (W_k x_j + w_(j-i))
        rotary (Su et al. 2021): queries and keys rotated by their positions

    Deviation from Shaw et al.: no such vectors are added to the values; the paper's
    table 3 finds no gain from them once the keys have them.

    Attributes:
      position_encoding: one of `positions.SCHEMES`; absolute schemes have no effect
        here.
      max_distance: relative position at which shaw clips (k).
      untie_biases: whether u and v are parameters of this layer; else they are passed
        in.
      dtype: type of relative keys, equal to that of the queries.
    """

    position_encoding: str = "none"
    max_distance: int = 1
    untie_biases: bool = False
    dtype: DType = jnp.float32

    def setup(self):
        super().setup()
        shape = (self.heads, self.head_dim)
        init = self.kernel_init or normal(0.02)
        axes = ("embed", "heads", "kv")
        if self.position_encoding == "relative":
            self.position_key = Dense(shape, axes, use_bias=False, kernel_init=init)
        if self.position_encoding == "shaw":
            rows = 2 * self.max_distance + 1
            self.distance_embedding = Embedding(rows, self.head_dim, init, (None, "kv"))
        if self.untie_biases:
            self.biases = make_relative_biases(self, init, shape)

    def project_relative_positions(
        self, positions: Int[Array, "C"], encodings: Float[Array, "C D"] | None
    ) -> Float[Array, "C H K"] | None:
        """Computes the relative keys, W_kR R or w, of relative positions i - j.

        Returns None for a scheme without relative keys.
        """
        if self.position_encoding == "relative":
            return self.position_key(encodings.astype(self.dtype))
        if self.position_encoding == "shaw":
            last = self.max_distance
            rows = jnp.clip(-positions, -last, last) + last
            keys = self.distance_embedding(rows, self.dtype)
            return jnp.repeat(keys[:, None], self.heads, axis=1)
        return None

    def _rotate(self, x, positions):
        return apply_rope(x, positions) if self.position_encoding == "rotary" else x

    def project_kv(
        self, content: Float[Array, "B S D"], positions: Int[Array, "#B #S"]
    ) -> KV:
        """Computes keys, rotated if the scheme is rotary, and values."""
        keys, values = super().project_kv(content)
        return self._rotate(keys, positions), values

    def _content_and_position_queries(self, x, positions, biases):
        query = self._rotate(self.project_query(x), positions)
        if self.position_encoding != "relative":
            return query, query
        u, v = self.biases if self.untie_biases else biases
        u, v = u.astype(query.dtype), v.astype(query.dtype)
        return query + u[:, None], query + v[:, None]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        kv: KV,
        mask: Bool[Array, "#B #T S"],
        positions: Int[Array, "#B #T"],
        relative_keys: Float[Array, "C H K"] | None = None,
        biases: RelativeBiases | None = None,
        *,
        ring_start: Int[Array, ""] | None = None,
        train: bool,
    ) -> Float[Array, "B T D"]:
        """Computes attention of each position of x over projected keys and values.

        Args:
          positions: positions of x.
          relative_keys: in the order of `relative_shift`.
          biases: u and v, if `position_encoding` is relative and they are shared.
          ring_start: slot of the oldest key of a ring buffer; None: keys are in order.
        """
        if ring_start is not None and x.shape[1] > 2 * self.head_dim:
            # Rolls the smaller arrays: keys and values, not the logits of many queries.
            kv = tuple(jnp.roll(slots, -ring_start, axis=2) for slots in kv)
            ring_start = None
        query, position_query = self._content_and_position_queries(x, positions, biases)
        if relative_keys is None:
            position_query = None
        inputs = AttentionInputs(query, *kv, position_query, relative_keys)
        return self._attend(inputs, mask, ring_start=ring_start, train=train)

    def decode_self_attention(
        self,
        x: Float[Array, "B N D"],
        prefix: TransposedKV,
        blocks: KVBlocks,
        step_mask: StepMask,
        biases: RelativeBiases | None = None,
    ) -> Float[Array, "B N D"]:
        """Computes attention of one token of each beam over prefix and ancestors."""
        queries = self._content_and_position_queries(x, step_mask.positions, biases)
        return self.project_output(
            decode_attention(*queries, prefix, blocks, step_mask)
        )


def make_relative_biases(
    module: nn.Module, init: Initializer, shape: tuple[int, int]
) -> RelativeBiases:
    """Creates the parameters u (content) and v (position) of a module."""
    init = nn.with_logical_partitioning(init, ("heads", "kv"))
    return (
        module.param("content_bias", init, shape),
        module.param("position_bias", init, shape),
    )
