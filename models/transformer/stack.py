"""The stack of attention layers that Transformer and Transformer-XL share."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention.kv_cache import SourceKV
from models.attention.multi_head import make_relative_biases
from models.attention.positions import sinusoidal_encoding
from models.common.dropout import Dropout
from models.common.layers import LayerNorm, normal
from models.transformer.block import AttentionContext, TransformerBlock
from models.transformer.config import StackConfig
from models.transformer.memory import KVMemory
from models.transformer.scanned_layers import scanned


class Stack(nn.Module):
    """N layers and, for pre-norm, the normalisation after the last."""

    config: StackConfig
    cross: bool

    def setup(self):
        config = self.config
        self.layers = [
            TransformerBlock(config, self.cross) for _ in range(config.layers)
        ]
        if config.position_encoding == "relative" and not config.untie_biases:
            init = config.kernel_init or normal(0.02)
            self.biases = make_relative_biases(
                self, init, (config.heads, config.resolved_head_dim)
            )
        else:
            self.biases = None
        self.drop = Dropout(config.dropout)
        if config.norm == "pre" and config.final_norm:
            self.final_norm = LayerNorm()

    def project_source(self, encoded: Float[Array, "B E D"]) -> tuple[SourceKV, ...]:
        """Each layer's keys and values of the encoder's output."""
        return tuple(layer.project_source(encoded) for layer in self.layers)

    def project_memory(self, hidden: tuple[Float[Array, "B M D"], ...]):
        """Each layer's keys and values of what it remembers."""
        places = jnp.arange(hidden[0].shape[1])[None]
        pairs = zip(self.layers, hidden, strict=True)
        return tuple(layer.project_memory(memory, places) for layer, memory in pairs)

    def project_relative_positions(self, farthest: int) -> tuple:
        """Each layer's W_kR R, or the like, of the distances `farthest` to 0."""
        distances = jnp.arange(farthest, -1, -1)
        encodings = self._encode(distances, train=False)
        return tuple(
            layer.self_attention.project_relative_positions(distances, encodings)
            for layer in self.layers
        )

    def _encode(self, distances, *, train):
        """R (Dai et al. 2019, section 3.3), farther ones as if at clamp_length."""
        config = self.config
        if config.position_encoding != "relative":
            return None
        if config.clamp_length:
            farthest = config.clamp_length  # to both sides, where both are seen
            distances = jnp.clip(distances, -farthest, farthest)
        encodings = sinusoidal_encoding(distances, config.width, interleaved=False)
        return self.drop(
            encodings.astype(config.compute_dtype), deterministic=not train
        )

    def attention_context(
        self,
        mask: Bool[Array, "#B #T S"],
        num_queries: int,
        *,
        nearest: int = 0,
        first: Int[Array, ""] | int | None = None,
        train: bool,
    ) -> AttentionContext:
        """Of S keys whose last T are also the queries.

        Args:
          nearest: the smallest distance a query meets: 0 if it sees no key after
            itself, 1 - T if it sees all of its text.
          first: place of the first query, where only the queries are projected;
            None: S - T, with all keys.
        """
        num_keys = mask.shape[-1]
        distances = jnp.arange(num_keys - 1, nearest - 1, -1)
        start = num_keys - num_queries if first is None else first
        places = (start + jnp.arange(num_queries))[None]
        everywhere = jnp.arange(num_keys)[None] if first is None else places
        encodings = self._encode(distances, train=train)
        return AttentionContext(mask, places, everywhere, distances, encodings)

    def __call__(
        self, x, attention_context, *, memory=None, past=None, source=None, train
    ):  # fmt: skip
        """The output, each layer's input, and its keys and values.

        Args:
          past: each layer's keys and values before the text, or None.
          source: an encoder's output and its mask, or None.

        Under `scan_layers` there are no keys and values. Who hands a past in needs
        them, who asks for "intermediates" what single layers sow, and `init` the
        names of their parameters: these get the layers one by one.
        """
        x = self.drop(x, deterministic=not train)
        if self._can_scan and past is None:
            x, inputs = scanned(self, x, memory, attention_context, source, train=train)
            return self._final_norm_and_dropout(x, train=train), inputs, ()
        biases = self.biases

        def one(layer, x, old, before):
            return layer(x, old, before, attention_context, biases, source, train=train)

        if self.config.remat:
            one = nn.remat(one)
        inputs, kept = [], []
        for layer, old, before in self._per_layer(memory, past):
            inputs.append(x)
            x, projected = one(layer, x, old, before)
            kept.append(projected)
        return self._final_norm_and_dropout(x, train=train), tuple(inputs), tuple(kept)

    @property
    def _can_scan(self) -> bool:
        watched = self.is_mutable_collection("intermediates")
        return self.config.scan_layers and not watched and not self.is_initializing()

    def read_segment(self, x, memory: KVMemory, attention_context, projected=None):
        """The output of a segment, and each layer's ring with the segment in it."""
        kept = []
        for layer, slots, distances in self._per_layer(memory.kv, projected):
            x, slots = layer.read_segment(
                x, slots, attention_context, self.biases, memory.num_written, distances
            )
            kept.append(slots)
        return self._final_norm_and_dropout(x, train=False), tuple(kept)

    def step(self, x, past, caches, number, views, source=None, source_mask=None):
        """One token of each hypothesis through all layers and their caches."""
        written = []
        for layer, before, cache, view, encoded in self._per_layer(
            past, caches, views, source
        ):
            seen = (encoded, source_mask) if self.cross else None
            x, cache = layer.step(x, before, cache, number, view, self.biases, seen)
            written.append(cache)
        return self._final_norm_and_dropout(x, train=False), tuple(written)

    def _per_layer(self, *parts):
        """The layers, each with its part of what every layer has or of None."""
        nothing = (None,) * len(self.layers)
        return zip(self.layers, *(part or nothing for part in parts), strict=True)

    def _final_norm_and_dropout(self, x, *, train):
        if self.config.norm == "pre" and self.config.final_norm:
            x = self.final_norm(x)
        if self.config.output_dropout:
            x = self.drop(x, deterministic=not train)
        return x
