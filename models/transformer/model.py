"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need").

`Seq2Seq` is the paper's encoder-decoder; `LanguageModel` is its decoder without
cross-attention. Neither has a memory: the carry is empty. `models/transformer_xl`
extends both.

Deviations from the paper, all by config: `norm="pre"` normalises before each
sublayer and once more after the last; attention weights have a dropout of their
own (`attention_dropout`), as in the authors' code; projections have biases.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models import api
from models.attention.kv_cache import (
    DecodeState,
    PrefixCache,
    TransposedKV,
    empty_prefix,
    init_decode_state,
    step_masks,
    transpose_keys,
)
from models.attention.positions import AbsolutePositionEmbedding
from models.common.adaptive_softmax import AdaptiveEmbedding, AdaptiveHead
from models.common.layers import Embedding, normal
from models.common.masks import (
    NO_WINDOW,
    causal_mask,
    pad_right,
    sliding_window_mask,
    valid_memory_mask,
)
from models.common.output_head import OutputHead
from models.transformer.config import StackConfig
from models.transformer.memory import Memory
from models.transformer.stack import Stack


@dataclasses.dataclass(frozen=True)
class Config(StackConfig):
    """Keys of `cfg.model`; `configs/base.py` explains each."""


# --- Embedding and output head -------------------------------------------------------


def make_embedding(config: StackConfig, vocab_size: int) -> nn.Module:
    """Returns the token embedding, adaptive if clusters or a width are configured."""
    if not is_adaptive(config):
        return Embedding(vocab_size, config.width, config.embedding_init)
    return AdaptiveEmbedding(
        vocab_size, config.width, **cluster_options(config), init=config.embedding_init
    )


def make_head(
    config: StackConfig, vocab_size: int, embedding: nn.Module | None
) -> nn.Module:
    """Returns the output head, tied to `embedding` if one is given."""
    if not is_adaptive(config):
        return OutputHead(vocab_size, config.width, config.embedding_init, embedding)
    return AdaptiveHead(
        vocab_size,
        config.width,
        **cluster_options(config),
        init=config.embedding_init,
        embedding=embedding,
        tie_projections=config.tie_projections and embedding is not None,
    )


def is_adaptive(config: StackConfig) -> bool:
    """Returns whether the embedding is more than one table [V, D]."""
    return bool(config.cutoffs) or config.embedding_width not in (0, config.width)


def cluster_options(config: StackConfig) -> dict:
    """Returns the options that adaptive embedding and head share."""
    return {
        "embedding_width": config.embedding_width or config.width,
        "cutoffs": tuple(config.cutoffs),
        "div_val": config.div_val,
        "projection_init": config.kernel_init or normal(config.width**-0.5),
    }


def make_position_embedding(config: StackConfig) -> AbsolutePositionEmbedding:
    """Returns the module that adds absolute positions to embedded tokens."""
    return AbsolutePositionEmbedding(
        config.position_encoding, config.width, config.max_positions
    )


# --- Language model ------------------------------------------------------------------


class DecodeContext(NamedTuple):
    """Constants of a generation.

    Attributes:
      prefix: keys and values of memory and prompt.
      relative_keys: projected relative positions of each layer.
      window: number of keys that a query attends to.
    """

    prefix: PrefixCache
    relative_keys: tuple
    window: Int[Array, ""]


class LanguageModel(api.LanguageModel):
    """Decoder-only Transformer (Vaswani et al. 2017)."""

    config: StackConfig

    def setup(self):
        config = self.config
        self.embedding = make_embedding(config, self.vocab_size)
        self.position_embedding = make_position_embedding(config)
        self.stack = Stack(config, cross=False)
        tied = self.embedding if config.tie_embeddings else None
        self.head = make_head(config, self.vocab_size, tied)

    def __call__(
        self, tokens: Int[Array, "B T"], carry: PyTree, *, train: bool
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Computes hidden states of a segment."""
        length = tokens.shape[1]
        mask = causal_mask(length, length)
        attention_context = self.stack.attention_context(mask, length, train=train)
        x = self.embed(tokens, attention_context.positions)
        return self.stack(x, attention_context, train=train)[0], carry

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """Computes sqrt(D) E[token] + PE (Vaswani et al. 2017, section 3.4)."""
        x = self.embedding(tokens, self.config.compute_dtype)
        return self.position_embedding(x * self.config.width**0.5, positions)

    def prefix_cache(self, carry: PyTree, batch_size: int) -> PrefixCache:
        """Returns the carry as keys and values, oldest first: none here."""
        config = self.config
        head = (config.heads, config.resolved_head_dim)
        return empty_prefix(batch_size, config.layers, *head, config.compute_dtype)

    def window(self, carry: PyTree) -> int:
        """Returns the number of keys that a query attends to, itself included."""
        return NO_WINDOW

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: PyTree,
        *,
        max_steps: int = 256,
    ) -> tuple[DecodeContext, DecodeState]:
        """Reads a prompt after a carry.

        The prompt is read aligned to the left, next to the memory. Its keys and
        values are then aligned to the right, so that all rows end in the same slot.

        Args:
          max_steps: maximum number of generated tokens.
        """
        prompt, mask = pad_right(prompt, prompt_mask)
        batch_size, length = prompt.shape
        memory = self.prefix_cache(carry, batch_size)
        valid = jnp.concatenate([memory.valid, mask], axis=1)
        attention_mask = valid[:, None] & causal_mask(length, valid.shape[1])
        window = self.window(carry)
        attention_mask &= sliding_window_mask(length, valid.shape[1], window)
        attention_context = self.stack.attention_context(
            attention_mask, length, first_position=memory.next_position[0], train=False
        )
        x = self.embed(prompt, attention_context.positions)
        _, _, kv = self.stack(x, attention_context, prefix=memory.kv, train=False)
        padding = length - mask.sum(axis=1)
        align_right = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=-2))
        kv = jax.tree.map(lambda slots: align_right(slots, padding), kv)
        valid = align_right(valid[..., None], padding)[..., 0]
        next_position = memory.next_position + length - padding
        prefix = PrefixCache(kv, valid, next_position).transpose_keys()
        relative_keys = self.stack.project_relative_positions(
            prefix.num_slots + max_steps - 1
        )
        context = DecodeContext(prefix, relative_keys, jnp.asarray(window))
        return context, init_decode_state(prefix, max_steps)

    def step(
        self, context: DecodeContext, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        """Feeds a token to each beam and returns logits of the next."""
        prefix, state = context.prefix, state.begin_step()
        masks = step_masks(prefix, state, context.relative_keys, context.window)
        x = self.embed(token, masks[0].positions)
        x, caches = self.stack.step(x, prefix.kv, state.kv, state.step, masks)
        return state.end_step(caches), self.logits(x)


# --- Encoder-decoder -----------------------------------------------------------------


class EncodedSource(NamedTuple):
    """Constants of a translation.

    Attributes:
      source: keys and values of the encoder's output for each layer.
      mask: True at source tokens, False at padding.
      prefix: keys and values of the decoder's memory.
      relative_keys: projected relative positions of each layer.
    """

    source: tuple[TransposedKV, ...]
    mask: Bool[Array, "B 1 E"]
    prefix: PrefixCache
    relative_keys: tuple


class Seq2Seq(api.Seq2Seq):
    """Encoder-decoder Transformer (Vaswani et al. 2017)."""

    config: StackConfig

    def setup(self):
        config = self.config
        tied = self.create_embeddings(functools.partial(make_embedding, config))
        self.source_position_embedding = make_position_embedding(config)
        self.target_position_embedding = make_position_embedding(config)
        self.encoder = Stack(config, cross=False)
        self.decoder = Stack(config, cross=True)
        self.head = make_head(config, self.target_vocab_size, tied)

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """Computes hidden states of the target given the source."""
        encoded, _ = self.encode(source, source_mask, None, train=train)
        x, _ = self.decode(
            encoded, source_mask, target_in, target_mask, None, train=train
        )
        return x, carry

    def embed_source(
        self, tokens: Int[Array, "B S"], positions: Int[Array, "#B #S"]
    ) -> Float[Array, "B S D"]:
        """Computes sqrt(D) E[token] + PE (Vaswani et al. 2017, section 3.4)."""
        x = self.source_embedding(tokens, self.config.compute_dtype)
        return self.source_position_embedding(x * self.config.width**0.5, positions)

    def embed_target(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """Computes sqrt(D) E[token] + PE with the target's embedding."""
        x = self.target_embedding(tokens, self.config.compute_dtype)
        return self.target_position_embedding(x * self.config.width**0.5, positions)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        memory: Memory | None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B S D"], tuple[Float[Array, "B S D"], ...]]:
        """Returns the source's hidden states and the input of each layer."""
        length = source.shape[1]
        attention_context = self.encoder.attention_context(
            prepend_memory_mask(memory, source_mask[:, None]),
            length,
            min_relative_position=1 - length,
            train=train,
        )
        x = self.embed_source(source, attention_context.positions)
        hidden = memory.hidden if memory else None
        x, inputs, _ = self.encoder(x, attention_context, memory=hidden, train=train)
        return x, inputs

    def decode(
        self,
        encoded: Float[Array, "B S D"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        memory: Memory | None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T D"], ...]]:
        """Returns the target's hidden states and the input of each layer."""
        length = target_in.shape[1]
        mask = causal_mask(length, length) & target_mask[:, None]
        attention_context = self.decoder.attention_context(
            prepend_memory_mask(memory, mask), length, train=train
        )
        x = self.embed_target(target_in, attention_context.positions)
        x, inputs, _ = self.decoder(
            x,
            attention_context,
            memory=memory.hidden if memory else None,
            source=(encoded, source_mask[:, None]),
            train=train,
        )
        return x, inputs

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: PyTree,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a source sentence.

        Args:
          max_steps: maximum number of tokens in the translation.
        """
        config = self.config
        head = (config.heads, config.resolved_head_dim)
        prefix = empty_prefix(len(source), config.layers, *head, config.compute_dtype)
        return self.start_after(source, source_mask, None, prefix, max_steps)

    def start_after(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        memory: Memory | None,
        prefix: PrefixCache,
        max_steps: int,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a source sentence after an encoder memory and a decoder prefix."""
        encoded, _ = self.encode(source, source_mask, memory, train=False)
        prefix = prefix.transpose_keys()
        relative_keys = self.decoder.project_relative_positions(
            prefix.num_slots + max_steps - 1
        )
        source_kv = tuple(map(transpose_keys, self.decoder.project_source(encoded)))
        context = EncodedSource(source_kv, source_mask[:, None], prefix, relative_keys)
        return context, init_decode_state(prefix, max_steps)

    def step(
        self, context: EncodedSource, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        """Feeds a token to each beam and returns logits of the next."""
        prefix, state = context.prefix, state.begin_step()
        window = jnp.asarray(NO_WINDOW)
        masks = step_masks(prefix, state, context.relative_keys, window)
        x = self.embed_target(token, masks[0].positions)
        x, caches = self.decoder.step(
            x, prefix.kv, state.kv, state.step, masks, context.source, context.mask
        )
        return state.end_step(caches), self.logits(x)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """Returns the last layer's cross-attention weights, averaged over heads."""
        last = f"layers_{self.config.layers - 1}"
        (weights,) = intermediates["decoder"][last]["cross_attention"]["attention"]
        return weights.mean(axis=1)


def prepend_memory_mask(memory: Memory | None, mask: Bool[Array, "B #T S"]) -> Array:
    """Extends the mask of a text by the valid slots of a memory before it."""
    if memory is None:
        return mask
    shape = (*mask.shape[:2], memory.length)
    valid = valid_memory_mask(memory.valid_length, memory.length)
    return jnp.concatenate([jnp.broadcast_to(valid, shape), mask], axis=-1)
