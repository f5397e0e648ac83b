"""One layer of the stacks that Transformer and Transformer-XL are made of.

It meets its text in four ways: whole (training), whole after projected keys and
values (the prompt of a generation), a segment after a ring of them (`stream`,
evaluation), and a token at a time (`step`, generation). What it does around
attention is the same in all.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import KV, KVBlocks, SourceKV, update_cache
from models.attention.multi_head import MultiHeadAttention, SelfAttention
from models.common.layers import Embedding, FeedForward, ResidualBlock, normal
from models.transformer.config import StackConfig
from models.transformer.memory import write_ring


class AttentionContext(NamedTuple):
    """Who sees whom in a text, and how far apart they are.

    Attributes:
      mask: which of S keys each query sees.
      positions: of the queries, counted from the first key.
      kv_positions: of what is projected together with the queries.
      relative_positions: i - j for each column of `relative_shift`.
      relative_encodings: R of these distances, for the scheme "relative".
    """

    mask: Bool[Array, "#B #T S"]
    positions: Int[Array, "#B T"]
    kv_positions: Int[Array, "#B S"]
    relative_positions: Int[Array, "C"]
    relative_encodings: Float[Array, "C D"] | None = None


class TransformerBlock(nn.Module):
    """A layer of the encoder or, with `cross`, of the decoder."""

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

    def project_source(self, encoded: Float[Array, "B E D"]) -> SourceKV:
        """Keys and values of the encoder's output, once a sentence."""
        return self.cross_attention.project_kv(encoded)

    def project_memory(
        self, memory: Float[Array, "B M D"], positions: Int[Array, "1 M"]
    ) -> KV:
        """Keys and values of remembered inputs."""
        return self.self_attention.project_kv(
            self.self_attention_residual.preprocess(memory), positions
        )

    def __call__(
        self, x, memory, past, attention_context, biases, source=None, *, train
    ):
        """Reads a whole text.

        Args:
          x: [B, T, D].
          memory: inputs remembered of this layer, [B, M, D], or None.
          past: keys and values that stand before the text, or None.
          attention_context: who sees whom, and how far apart they are.
          source: an encoder's output and its mask, or None.

        Returns the output and the keys and values of all that was seen.
        """
        x = self._add_layer_positions(x, attention_context.positions)
        y = self.self_attention_residual.preprocess(x)
        parts = [] if past is None else [past]
        if memory is not None:  # apart, since nothing is learnt through it
            before = attention_context.kv_positions[:, : memory.shape[1]]
            parts.append(self.project_memory(memory, before))
        positions = attention_context.kv_positions[:, -x.shape[1] :]
        parts.append(self.self_attention.project_kv(y, positions))
        kept = tuple(jnp.concatenate(each, axis=2) for each in zip(*parts, strict=True))
        y = self.self_attention(
            y,
            kept,
            attention_context.mask,
            attention_context.positions,
            self._distances(attention_context),
            biases,
            train=train,
        )
        x = self.self_attention_residual.postprocess(x, y, train=train)
        if source is not None:
            encoded, source_mask = source
            source = self.project_source(encoded), source_mask
        return self._cross_attention_and_ffn(x, source, train=train), kept

    def read_segment(
        self, x, slots, attention_context, biases, written, projected=None
    ):
        """Reads a segment after a ring of keys and values, which it writes into."""
        y = self.self_attention_residual.preprocess(x)
        new = self.self_attention.project_kv(y, attention_context.positions)
        slots = tuple(
            write_ring(old, one, written) for old, one in zip(slots, new, strict=True)
        )
        if projected is None:
            projected = self._distances(attention_context)
        num_slots, oldest = slots[0].shape[2], written + x.shape[1]
        y = self.self_attention(
            y,
            slots,
            attention_context.mask,
            attention_context.positions,
            projected,
            biases,
            ring_start=oldest % num_slots,
            train=False,
        )
        x = self.self_attention_residual.postprocess(x, y, train=False)
        return self._cross_attention_and_ffn(x, None, train=False), slots

    def step(self, x, past, written: KVBlocks, number, view, biases, source=None):
        """One token of each of N hypotheses, [B, N, D], their `number`-th.

        Args:
          source: an encoder's output as keys, turned, and values, and its mask.
        """
        x = self._add_layer_positions(x, view.positions)
        y = self.self_attention_residual.preprocess(x)
        new = self.self_attention.project_kv(y, view.positions)
        written = update_cache(written, new, number)
        y = self.self_attention.decode_self_attention(y, past, written, view, biases)
        x = self.self_attention_residual.postprocess(x, y, train=False)
        if self.cross:
            y = self.cross_attention.decode_cross_attention(
                self.cross_attention_residual.preprocess(x), *source
            )
            x = self.cross_attention_residual.postprocess(x, y, train=False)
        return self._feed_forward(x, train=False), written

    def _distances(self, attention_context):
        return self.self_attention.project_relative_positions(
            attention_context.relative_positions, attention_context.relative_encodings
        )

    def _add_layer_positions(self, x, positions):
        if self.config.position_encoding != "learned_per_layer":
            return x
        positions = jnp.minimum(positions, self.config.max_positions - 1)
        return x + self.position_embedding(positions, x.dtype)

    def _cross_attention_and_ffn(self, x, source, *, train):
        """Cross-attention and feed-forward."""
        if self.cross:
            projected, mask = source
            y = self.cross_attention_residual.preprocess(x)
            y = self.cross_attention(y, projected, mask, train=train)
            x = self.cross_attention_residual.postprocess(x, y, train=train)
        return self._feed_forward(x, train=train)

    def _feed_forward(self, x, *, train):
        y = self.feed_forward(self.feed_forward_residual.preprocess(x), train=train)
        return self.feed_forward_residual.postprocess(x, y, train=train)
