"""The stack of layers that Transformer and Transformer-XL share."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float, Int, PyTree

from models.attention.kv_cache import (
    DecodeState,
    PrefixCache,
    TransposedKV,
    empty_prefix,
    init_decode_state,
    step_masks,
    transpose_keys,
)
from models.attention.multi_head import make_relative_biases
from models.attention.positions import sinusoidal_encoding
from models.common.dropout import Dropout
from models.common.layers import LayerNorm, normal
from models.common.masks import NO_WINDOW, valid_memory_mask
from models.transformer.block import AttentionContext, PastKV, TransformerBlock
from models.transformer.config import Config


class DecodeContext(NamedTuple):
    """Constants of a generation.

    Attributes:
      prefix: keys and values of memory and prompt.
      relative_keys: projected relative positions of each layer.
      window: number of keys that a query attends to, itself included.
      source: keys and values of an encoder's output for each layer.
      source_mask: True at source tokens, False at padding.
    """

    prefix: PrefixCache
    relative_keys: tuple
    window: Int[Array, ""]
    source: tuple[TransposedKV, ...] = ()
    source_mask: Bool[Array, "B 1 E"] | None = None


class Stack(nn.Module):
    """Stack of N layers, with a final normalisation if pre-norm.

    Attributes:
      cross: whether the layers have cross-attention.
    """

    config: Config
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
            self.final_norm = LayerNorm(config.norm_epsilon)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        context: AttentionContext,
        *,
        past: tuple[PastKV, ...] | tuple[Float[Array, "B M D"], ...] | None = None,
        source: tuple[Float[Array, "B E D"], Bool[Array, "B 1 E"]] | None = None,
        relative_keys: tuple | None = None,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T D"], ...], tuple]:
        """Reads a text, or a segment of it.

        Args:
          x: embedded tokens.
          past, relative_keys: those of each layer; see `TransformerBlock`.

        Returns the output, the input of each layer, and the keys and values of each
        layer. `scan_layers` returns no keys and values; it is ignored where they are
        needed (`past` has them), in `init`, and while "intermediates" are collected.
        """
        x = self.drop(x, deterministic=not train)
        watched = self.is_mutable_collection("intermediates")
        has_kv = past is not None and isinstance(past[0], tuple)
        can_scan = not watched and not self.is_initializing() and not has_kv
        if self.config.scan_layers and can_scan:
            x, inputs = scan_layers(self, x, past, context, source, train=train)
            return self._final_norm_and_dropout(x, train=train), inputs, ()
        biases = self.biases

        def apply(layer, x, past, keys):
            return layer(x, past, context, biases, source, keys, train=train)

        if self.config.remat:
            apply = nn.remat(apply)
        inputs, all_kv = [], []
        for layer, *parts in self._per_layer(past, relative_keys):
            inputs.append(x)
            x, kv = apply(layer, x, *parts)
            all_kv.append(kv)
        x = self._final_norm_and_dropout(x, train=train)
        return x, tuple(inputs), tuple(all_kv)

    def init_decoding(
        self,
        prefix: PrefixCache,
        max_steps: int,
        *,
        window: int = NO_WINDOW,
        encoded: Float[Array, "B E D"] | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
    ) -> tuple[DecodeContext, DecodeState]:
        """Returns the constants of a generation and the state of one beam."""
        prefix, source = prefix.to_decode_layout(), ()
        num_positions = prefix.num_slots + max_steps
        relative_keys = self.project_relative_positions(num_positions - 1)
        if self.cross:
            source = tuple(
                transpose_keys(layer.cross_attention.project_kv(encoded))
                for layer in self.layers
            )
        window = jnp.asarray(window)
        context = DecodeContext(prefix, relative_keys, window, source, source_mask)
        return context, init_decode_state(prefix, max_steps)

    def step(
        self,
        context: DecodeContext,
        state: DecodeState,
        embed: Callable[[Int[Array, "B 1"]], Float[Array, "B N D"]],
    ) -> tuple[DecodeState, Float[Array, "B N D"]]:
        """Reads one token of each beam; returns the next state and the output.

        Args:
          embed: function of the tokens' positions to their embeddings.
        """
        prefix, state = context.prefix, state.begin_step()
        masks = step_masks(prefix, state, context.relative_keys, context.window)
        x, caches = embed(masks[0].positions), []
        for layer, layer_prefix, cache, mask, source in self._per_layer(
            prefix.kv, state.kv, masks, context.source
        ):
            if self.cross:
                source = (source, context.source_mask)
            x, cache = layer.step(
                x, layer_prefix, cache, state.step, mask, self.biases, source
            )
            caches.append(cache)
        x = self._final_norm_and_dropout(x, train=False)
        return state.end_step(tuple(caches)), x

    def prefix_cache(self, memory: PyTree, batch_size: int) -> PrefixCache:
        """Returns keys and values of a memory of layer inputs; no slots without one."""
        if not memory:
            config = self.config
            head = (config.heads, config.resolved_head_dim)
            return empty_prefix(batch_size, config.layers, *head, config.compute_dtype)
        positions = jnp.arange(memory.length)[None]
        kv = tuple(
            layer.project_memory(hidden, positions)
            for layer, hidden in zip(self.layers, memory.hidden, strict=True)
        )
        valid = valid_memory_mask(memory.valid_length, memory.length)[:, 0]
        return PrefixCache(kv, valid, jnp.full(batch_size, memory.length))

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
        all_positions = jnp.arange(num_keys)[None]
        kv_positions = all_positions if first_position is None else positions
        encodings = self._encode_relative_positions(relative_positions, train=train)
        return AttentionContext(
            mask, positions, kv_positions, relative_positions, encodings
        )

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
    context: AttentionContext,
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
            *(x, layer_memory, context, biases, source),
            train=train,
            rngs={} if key is None else {"dropout": key},
            mutable=mutable,
        )
        return y, (x, sown.get("losses", {}))

    if config.remat:
        apply = jax.checkpoint(apply, prevent_cse=False)
    params = nn.meta.unbox(stack.variables["params"])
    layers = [params[f"layers_{i}"] for i in range(config.layers)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    stacked_memory = None if memory is None else jnp.stack(memory)
    per_layer = (params, dropout_keys(stack, train), stacked_memory)
    x, (inputs, sown) = jax.lax.scan(apply, x, per_layer)
    for path, losses in flatten_dict(sown).items():
        for total, weight in losses:
            stack.sow("losses", path[-1], (total.sum(axis=0), weight.sum(axis=0)))
    return x, tuple(inputs)


def dropout_keys(stack: Stack, train: bool) -> Array | None:
    """Returns one dropout key per layer; None without dropout."""
    if not train or not stack.has_rng("dropout"):
        return None
    return jax.random.split(stack.make_rng("dropout"), stack.config.layers)
