"""The stack of layers that Transformer and Transformer-XL share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.attention.kv_cache import KV, KVBlocks, SourceKV
from models.attention.multi_head import make_relative_biases
from models.attention.positions import sinusoidal_encoding
from models.common.dropout import Dropout
from models.common.layers import LayerNorm, normal
from models.transformer.block import AttentionContext, TransformerBlock
from models.transformer.config import StackConfig
from models.transformer.memory import KVMemory


class Stack(nn.Module):
    """Stack of N layers, with a final normalisation if pre-norm.

    Attributes:
      cross: whether the layers have cross-attention.
    """

    config: StackConfig
    cross: bool

    def setup(self):
        config = self.config
        self.layers = [
            TransformerBlock(config, self.cross) for _ in range(config.layers)
        ]
        self.biases = None
        if config.position_encoding == "relative" and not config.untie_biases:
            init = config.kernel_init or normal(0.02)
            shape = (config.heads, config.resolved_head_dim)
            self.biases = make_relative_biases(self, init, shape)
        self.drop = Dropout(config.dropout)
        if config.norm == "pre" and config.final_norm:
            self.final_norm = LayerNorm()

    def __call__(
        self,
        x: Float[Array, "B T D"],
        attention_context: AttentionContext,
        *,
        memory: tuple[Float[Array, "B M D"], ...] | None = None,
        prefix: tuple[KV, ...] | None = None,
        source: tuple[Float[Array, "B E D"], Bool[Array, "B 1 E"]] | None = None,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T D"], ...], tuple]:
        """Reads a whole text.

        Args:
          x: embedded tokens.
          attention_context: mask and positions, from `attention_context`.
          memory: inputs of each layer in earlier segments.
          prefix: keys and values of each layer before the text.
          source: an encoder's output and its mask.

        Returns the output, the input of each layer, and the keys and values of each
        layer. `scan_layers` returns no keys and values; it is ignored where they are
        needed (`prefix`), in `init`, and while "intermediates" are collected.
        """
        x = self.drop(x, deterministic=not train)
        watched = self.is_mutable_collection("intermediates")
        can_scan = not watched and not self.is_initializing() and prefix is None
        if self.config.scan_layers and can_scan:
            x, inputs = scan_layers(
                self, x, memory, attention_context, source, train=train
            )
            return self._final_norm_and_dropout(x, train=train), inputs, ()
        biases = self.biases

        def apply(layer, x, memory, prefix):
            return layer(
                x, memory, prefix, attention_context, biases, source, train=train
            )

        if self.config.remat:
            apply = nn.remat(apply)
        inputs, all_kv = [], []
        for layer, layer_memory, layer_prefix in self._per_layer(memory, prefix):
            inputs.append(x)
            x, kv = apply(layer, x, layer_memory, layer_prefix)
            all_kv.append(kv)
        x = self._final_norm_and_dropout(x, train=train)
        return x, tuple(inputs), tuple(all_kv)

    def read_segment(
        self,
        x: Float[Array, "B T D"],
        memory: KVMemory,
        attention_context: AttentionContext,
        relative_keys: tuple | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[KV, ...]]:
        """Reads a segment of an evaluation.

        Args:
          relative_keys: projected relative positions of each layer, or None.

        Returns the output, and each layer's ring buffer with the segment.
        """
        rings = []
        for layer, ring, keys in self._per_layer(memory.kv, relative_keys):
            x, ring = layer.read_segment(
                x, ring, attention_context, self.biases, memory.next_position, keys
            )
            rings.append(ring)
        return self._final_norm_and_dropout(x, train=False), tuple(rings)

    def step(
        self,
        x: Float[Array, "B N D"],
        prefix: tuple,
        caches: tuple[KVBlocks, ...],
        step: Int[Array, ""],
        step_masks: tuple,
        source: tuple | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
    ) -> tuple[Float[Array, "B N D"], tuple[KVBlocks, ...]]:
        """Reads one token of each beam; returns the output and the layers' caches."""
        new = []
        for layer, layer_prefix, cache, mask, encoded in self._per_layer(
            prefix, caches, step_masks, source
        ):
            layer_source = (encoded, source_mask) if self.cross else None
            x, cache = layer.step(
                x, layer_prefix, cache, step, mask, self.biases, layer_source
            )
            new.append(cache)
        return self._final_norm_and_dropout(x, train=False), tuple(new)

    def attention_context(
        self,
        mask: Bool[Array, "#B #T S"],
        num_queries: int,
        *,
        min_relative_position: int = 0,
        first_position: Int[Array, ""] | int | None = None,
        train: bool,
    ) -> AttentionContext:
        """Returns mask and positions of S keys whose last T are also the queries.

        Args:
          min_relative_position: smallest i - j that a query attends to: 0 if causal,
            1 - T if bidirectional.
          first_position: position of the first query, if only the queries are
            projected to keys and values; None: S - T, and all keys are projected.
        """
        num_keys = mask.shape[-1]
        relative_positions = jnp.arange(num_keys - 1, min_relative_position - 1, -1)
        start = num_keys - num_queries if first_position is None else first_position
        positions = (start + jnp.arange(num_queries))[None]
        kv_positions = jnp.arange(num_keys)[None]
        if first_position is not None:
            kv_positions = positions
        encodings = self._encode_relative_positions(relative_positions, train=train)
        return AttentionContext(
            mask, positions, kv_positions, relative_positions, encodings
        )

    def project_source(self, encoded: Float[Array, "B E D"]) -> tuple[SourceKV, ...]:
        """Projects the encoder's output to the keys and values of each layer."""
        return tuple(layer.project_source(encoded) for layer in self.layers)

    def project_memory(
        self, hidden: tuple[Float[Array, "B M D"], ...]
    ) -> tuple[KV, ...]:
        """Projects remembered layer inputs to the keys and values of each layer."""
        positions = jnp.arange(hidden[0].shape[1])[None]
        pairs = zip(self.layers, hidden, strict=True)
        return tuple(layer.project_memory(memory, positions) for layer, memory in pairs)

    def project_relative_positions(self, max_relative_position: int) -> tuple:
        """Projects the relative positions `max_relative_position` to 0 in each layer.

        Returns W_kR R (Dai et al. 2019) or w (Shaw et al. 2018); None for each layer
        where the scheme has none.
        """
        relative_positions = jnp.arange(max_relative_position, -1, -1)
        encodings = self._encode_relative_positions(relative_positions, train=False)
        return tuple(
            layer.self_attention.project_relative_positions(
                relative_positions, encodings
            )
            for layer in self.layers
        )

    def _encode_relative_positions(self, relative_positions, *, train):
        """Returns R (Dai et al. 2019, section 3.3), clamped to clamp_length."""
        config = self.config
        if config.position_encoding != "relative":
            return None
        if config.clamp_length:  # on both sides: an encoder also attends to the right
            limit = config.clamp_length
            relative_positions = jnp.clip(relative_positions, -limit, limit)
        encodings = sinusoidal_encoding(
            relative_positions, config.width, interleaved=False
        ).astype(config.compute_dtype)
        return self.drop(encodings, deterministic=not train)

    def _per_layer(self, *parts):
        """Zips the layers with what each part holds for them; None for no part."""
        nothing = (None,) * len(self.layers)
        return zip(self.layers, *(part or nothing for part in parts), strict=True)

    def _final_norm_and_dropout(self, x, *, train):
        if self.config.norm == "pre" and self.config.final_norm:
            x = self.final_norm(x)
        if self.config.output_dropout:
            x = self.drop(x, deterministic=not train)
        return x


# --- scan_layers: the layers as one loop, so that compile time does not grow ---------


def scan_layers(
    stack: Stack,
    x: Float[Array, "B T D"],
    memory: tuple[Float[Array, "B M D"], ...] | None,
    attention_context: AttentionContext,
    source: tuple | None,
    *,
    train: bool,
) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T D"], ...]]:
    """Applies the layers with `jax.lax.scan`; see `Stack.__call__`.

    Parameters stay those of single layers and are stacked inside the program, so
    checkpoints are the same either way. Each layer has its own dropout key, which
    differs from the unrolled one. What layers sow in "losses" is summed over layers.

    Returns the output and the input of each layer.
    """
    config, biases = stack.config, stack.biases
    layer = TransformerBlock(config, stack.cross, parent=None)
    mutable = ["losses"] if stack.is_mutable_collection("losses") else []

    def apply(x, per_layer):
        params, key, layer_memory = per_layer
        (y, _), sown = layer.apply(
            {"params": params},
            *(x, layer_memory, None, attention_context, biases, source),
            train=train,
            rngs={} if key is None else {"dropout": key},
            mutable=mutable,
        )
        return y, (x, sown.get("losses", {}))

    if config.remat:
        apply = jax.checkpoint(apply, prevent_cse=False)
    stacked_memory = None if memory is None else jnp.stack(memory)
    per_layer = (stack_parameters(stack), dropout_keys(stack, train), stacked_memory)
    x, (inputs, sown) = jax.lax.scan(apply, x, per_layer)
    for path, losses in flatten_dict(sown).items():
        for total, weight in losses:
            stack.sow("losses", path[-1], (total.sum(axis=0), weight.sum(axis=0)))
    return x, tuple(inputs)


def stack_parameters(stack: Stack) -> PyTree:
    """Stacks the layers' parameters along a new first axis."""
    params = nn.meta.unbox(stack.variables["params"])
    layers = [params[f"layers_{i}"] for i in range(stack.config.layers)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def dropout_keys(stack: Stack, train: bool) -> Array | None:
    """Returns one dropout key per layer; None without dropout."""
    if not train or not stack.has_rng("dropout"):
        return None
    return jax.random.split(stack.make_rng("dropout"), stack.config.layers)
