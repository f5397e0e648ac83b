"""One layer of the Transformer and of Transformer-XL.

The layer reads a text (`__call__`: training, evaluation, and the prompt of a
generation) or one token per beam (`step`: decoding).
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import KV, KVBlocks, StepMask, update_cache
from models.attention.multi_head import (
    MultiHeadAttention,
    RelativeBiases,
    SelfAttention,
)
from models.common.layers import Embedding, FeedForward, ResidualBlock, normal
from models.transformer.config import Config

PastKV = tuple[Float[Array, "B H M K"], Float[Array, "B H M K"]]


class AttentionContext(NamedTuple):
    """Mask and positions of a self-attention, shared by all layers.

    Attributes:
      mask: True where a query may attend to a key.
      positions: position of each query, counted from the first key.
      kv_positions: position of each token that is projected to a key and value.
      relative_positions: i - j for each column that `relative_shift` reads.
      relative_encodings: R of the relative positions, for the scheme "relative".
      ring_position: position of the first query, which goes to slot ring_position % R
        of a ring buffer of keys and values; None: keys are in order.
    """

    mask: Bool[Array, "#B #T S"]
    positions: Int[Array, "#B T"]
    kv_positions: Int[Array, "#B S"]
    relative_positions: Int[Array, "C"]
    relative_encodings: Float[Array, "C D"] | None = None
    ring_position: Int[Array, ""] | None = None


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward (Vaswani et al. 2017, fig. 1).

    Attributes:
      cross: whether the layer has cross-attention to an encoder's output.
    """

    config: Config
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
        residual = config.norm, config.dropout, config.norm_epsilon
        self.self_attention_residual = ResidualBlock(*residual)
        if self.cross:
            self.cross_attention = MultiHeadAttention(**attention)
            self.cross_attention_residual = ResidualBlock(*residual)
        self.feed_forward = FeedForward(
            config.width,
            config.feed_forward,
            config.ffn_dropout_rate,
            config.activation,
            config.kernel_init,
        )
        self.feed_forward_residual = ResidualBlock(*residual)
        if config.position_encoding == "learned_per_layer":
            self.position_embedding = Embedding(
                config.max_positions, config.width, normal(0.02)
            )

    def __call__(
        self,
        x: Float[Array, "B T D"],
        past: PastKV | Float[Array, "B M D"] | None,
        context: AttentionContext,
        biases: RelativeBiases | None,
        source: tuple[Float[Array, "B E D"], Bool[Array, "B 1 E"]] | None = None,
        relative_keys: Float[Array, "C H K"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], KV]:
        """Reads a text, or a segment of it.

        Args:
          past: inputs of this layer in earlier segments; or keys and values before
            the text, in a ring buffer if `context.ring_position` is set.
          biases: u and v of all layers, for the scheme "relative".
          source: an encoder's output and its mask.
          relative_keys: projected relative positions; None: project them here.

        Returns the output, and the keys and values of past and text.
        """
        if self.config.position_encoding == "learned_per_layer":
            x = self._add_positions(x, context.positions)
        y = self.self_attention_residual.preprocess(x)
        kv, ring_start = self._extend_kv(y, past, context)
        if relative_keys is None:
            relative_keys = self.self_attention.project_relative_positions(
                context.relative_positions, context.relative_encodings
            )
        y = self.self_attention(
            y,
            kv,
            context.mask,
            context.positions,
            relative_keys,
            biases,
            ring_start=ring_start,
            train=train,
        )
        x = self.self_attention_residual.postprocess(x, y, train=train)
        if self.cross:
            encoded, source_mask = source
            y = self.cross_attention_residual.preprocess(x)
            source_kv = self.cross_attention.project_kv(encoded)
            y = self.cross_attention(y, source_kv, source_mask, train=train)
            x = self.cross_attention_residual.postprocess(x, y, train=train)
        return self._feed_forward(x, train=train), kv

    def _extend_kv(self, y, past, context):
        """Adds the keys and values of a text to those of the past.

        Returns them, and the slot of the oldest key of a ring buffer or None.
        """
        length = y.shape[1]
        new = self.self_attention.project_kv(y, context.kv_positions[:, -length:])
        if past is None:
            return new, None
        if not isinstance(past, tuple):  # projected apart: no gradient flows into it
            past = self.project_memory(past, context.kv_positions[:, : past.shape[1]])
        pairs = zip(past, new, strict=True)
        if context.ring_position is None:
            return tuple(jnp.concatenate(pair, axis=2) for pair in pairs), None
        num_slots, first = past[0].shape[2], context.ring_position
        indices = (first + jnp.arange(length)) % num_slots
        options = {"mode": "promise_in_bounds", "unique_indices": True}
        ring = tuple(
            slots.at[:, :, indices].set(part, **options) for slots, part in pairs
        )
        return ring, (first + length) % num_slots

    def step(
        self,
        x: Float[Array, "B N D"],
        prefix: tuple,
        cache: KVBlocks,
        step: Int[Array, ""],
        step_mask: StepMask,
        biases: RelativeBiases | None,
        source: tuple | None = None,
    ) -> tuple[Float[Array, "B N D"], KVBlocks]:
        """Reads one token of each of N beams.

        Args:
          prefix: keys and values shared by the beams.
          step: index of the token among the generated ones.
          source: keys and values of an encoder's output, and its mask.

        Returns the output and the cache with the token.
        """
        if self.config.position_encoding == "learned_per_layer":
            x = self._add_positions(x, step_mask.positions)
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

    def project_memory(
        self, memory: Float[Array, "B M D"], positions: Int[Array, "1 M"]
    ) -> KV:
        """Projects remembered inputs to keys and values of self-attention."""
        memory = self.self_attention_residual.preprocess(memory)
        return self.self_attention.project_kv(memory, positions)

    def _add_positions(self, x, positions):
        positions = jnp.minimum(positions, self.config.max_positions - 1)
        return x + self.position_embedding(positions, x.dtype)

    def _feed_forward(self, x, *, train):
        y = self.feed_forward(self.feed_forward_residual.preprocess(x), train=train)
        return self.feed_forward_residual.postprocess(x, y, train=train)
