"""One layer of the Transformer and of Transformer-XL.

The layer reads its input in three ways: a whole text (`__call__`: training, and the
prompt of a generation), a segment after a ring buffer of keys and values
(`read_segment`: evaluation with memory), and one token per beam (`step`: decoding).
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import KV, KVBlocks, SourceKV, update_cache
from models.attention.multi_head import (
    MultiHeadAttention,
    RelativeBiases,
    SelfAttention,
)
from models.common.layers import Embedding, FeedForward, ResidualBlock, normal
from models.transformer.config import StackConfig
from models.transformer.memory import write_ring


class AttentionContext(NamedTuple):
    """Mask and positions of a self-attention, shared by all layers.

    Attributes:
      mask: True where a query may attend to a key.
      positions: position of each query, counted from the first key.
      kv_positions: position of each token that is projected to a key and value.
      relative_positions: i - j for each column that `relative_shift` reads.
      relative_encodings: R of the relative positions, for the scheme "relative".
    """

    mask: Bool[Array, "#B #T S"]
    positions: Int[Array, "#B T"]
    kv_positions: Int[Array, "#B S"]
    relative_positions: Int[Array, "C"]
    relative_encodings: Float[Array, "C D"] | None = None


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward (Vaswani et al. 2017, fig. 1).

    Attributes:
      cross: whether the layer has cross-attention to an encoder's output.
    """

    config: StackConfig
    cross: bool

    def setup(self):
        config = self.config
        attention = {
            "heads": config.heads,
            "width": config.width,
            "head_dim": config.resolved_head_dim,
            "dropout": config.attention_dropout_rate,
            "use_bias": config.attention_bias,
            "share_qkv": config.share_qkv,
            "implementation": config.attention_impl,
            "kernel_init": config.kernel_init,
        }
        self.self_attention = SelfAttention(
            **attention,
            position_encoding=config.position_encoding,
            max_distance=config.max_distance,
            untie_biases=config.untie_biases and config.position_encoding == "relative",
            dtype=config.compute_dtype,
        )
        self.self_attention_residual = ResidualBlock(config.norm, config.dropout)
        if self.cross:
            self.cross_attention = MultiHeadAttention(**attention)
            self.cross_attention_residual = ResidualBlock(config.norm, config.dropout)
        self.feed_forward = FeedForward(
            config.width,
            config.feed_forward,
            config.ffn_dropout_rate,
            config.activation,
            config.kernel_init,
        )
        self.feed_forward_residual = ResidualBlock(config.norm, config.dropout)
        if config.position_encoding == "learned_per_layer":
            self.position_embedding = Embedding(
                config.max_positions, config.width, normal(0.02)
            )

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B M D"] | None,
        prefix: tuple | None,
        attention_context: AttentionContext,
        biases: RelativeBiases | None,
        source: tuple[Float[Array, "B E D"], Bool[Array, "B 1 E"]] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], KV]:
        """Reads a whole text.

        Args:
          x: the layer's input.
          memory: inputs of this layer in earlier segments.
          prefix: keys and values before the text.
          attention_context: mask and positions.
          biases: u and v of all layers, for the scheme "relative".
          source: an encoder's output and its mask.

        Returns the output, and the keys and values of prefix, memory and text.
        """
        x = self._add_layer_positions(x, attention_context.positions)
        y = self.self_attention_residual.preprocess(x)
        kv_positions = attention_context.kv_positions
        parts = [] if prefix is None else [prefix]
        if memory is not None:  # projected apart: no gradient flows into it
            memory_positions = kv_positions[:, : memory.shape[1]]
            parts.append(self.project_memory(memory, memory_positions))
        parts.append(self.self_attention.project_kv(y, kv_positions[:, -x.shape[1] :]))
        kv = tuple(jnp.concatenate(part, axis=2) for part in zip(*parts, strict=True))
        y = self.self_attention(
            y,
            kv,
            attention_context.mask,
            attention_context.positions,
            self._project_relative_positions(attention_context),
            biases,
            train=train,
        )
        x = self.self_attention_residual.postprocess(x, y, train=train)
        if self.cross:
            encoded, source_mask = source
            y = self.cross_attention_residual.preprocess(x)
            source_kv = self.project_source(encoded)
            y = self.cross_attention(y, source_kv, source_mask, train=train)
            x = self.cross_attention_residual.postprocess(x, y, train=train)
        return self._feed_forward(x, train=train), kv

    def read_segment(
        self,
        x: Float[Array, "B T D"],
        ring: KV,
        attention_context: AttentionContext,
        biases: RelativeBiases | None,
        next_position: Int[Array, ""],
        relative_keys: Float[Array, "C H K"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KV]:
        """Reads a segment and writes its keys and values into a ring buffer.

        Args:
          next_position: position of the first token of the segment.
          relative_keys: projected relative positions; None: project them here.

        Returns the output and the ring.
        """
        y = self.self_attention_residual.preprocess(x)
        new = self.self_attention.project_kv(y, attention_context.positions)
        ring = tuple(
            write_ring(slots, part, next_position)
            for slots, part in zip(ring, new, strict=True)
        )
        if relative_keys is None:
            relative_keys = self._project_relative_positions(attention_context)
        y = self.self_attention(
            y,
            ring,
            attention_context.mask,
            attention_context.positions,
            relative_keys,
            biases,
            ring_start=(next_position + x.shape[1]) % ring[0].shape[2],
            train=False,
        )
        x = self.self_attention_residual.postprocess(x, y, train=False)
        return self._feed_forward(x, train=False), ring

    def step(
        self,
        x: Float[Array, "B N D"],
        prefix: tuple,
        cache: KVBlocks,
        step: Int[Array, ""],
        step_mask,
        biases: RelativeBiases | None,
        source: tuple | None = None,
    ) -> tuple[Float[Array, "B N D"], KVBlocks]:
        """Reads one token of each of N beams.

        Args:
          prefix: keys and values shared by the beams.
          cache: keys and values of generated tokens.
          step: index of the token among the generated ones.
          step_mask: mask and positions of this layer.
          source: keys and values of an encoder's output, and its mask.

        Returns the output and the cache with the token.
        """
        x = self._add_layer_positions(x, step_mask.positions)
        y = self.self_attention_residual.preprocess(x)
        new = self.self_attention.project_kv(y, step_mask.positions)
        cache = update_cache(cache, new, step)
        y = self.self_attention.decode_self_attention(
            y, prefix, cache, step_mask, biases
        )
        x = self.self_attention_residual.postprocess(x, y, train=False)
        if self.cross:
            y = self.cross_attention_residual.preprocess(x)
            y = self.cross_attention.decode_cross_attention(y, *source)
            x = self.cross_attention_residual.postprocess(x, y, train=False)
        return self._feed_forward(x, train=False), cache

    def project_source(self, encoded: Float[Array, "B E D"]) -> SourceKV:
        """Projects the encoder's output to keys and values of cross-attention."""
        return self.cross_attention.project_kv(encoded)

    def project_memory(
        self, memory: Float[Array, "B M D"], positions: Int[Array, "1 M"]
    ) -> KV:
        """Projects remembered inputs to keys and values of self-attention."""
        memory = self.self_attention_residual.preprocess(memory)
        return self.self_attention.project_kv(memory, positions)

    def _project_relative_positions(self, attention_context):
        return self.self_attention.project_relative_positions(
            attention_context.relative_positions, attention_context.relative_encodings
        )

    def _add_layer_positions(self, x, positions):
        if self.config.position_encoding != "learned_per_layer":
            return x
        positions = jnp.minimum(positions, self.config.max_positions - 1)
        return x + self.position_embedding(positions, x.dtype)

    def _feed_forward(self, x, *, train):
        y = self.feed_forward(self.feed_forward_residual.preprocess(x), train=train)
        return self.feed_forward_residual.postprocess(x, y, train=train)
