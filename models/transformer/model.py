"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need").

`Seq2Seq` is the paper's encoder-decoder; `LanguageModel` is its decoder without
cross-attention. The carry is empty, unless `models/transformer_xl`, which extends both,
gives them a memory.

Deviations from the paper by config: `norm="pre"` normalises before each sublayer and
once more after the last; attention weights have a dropout of their own
(`attention_dropout`), as in the authors' code. Not by config: projections have biases.
"""

import functools
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from models import api
from models.attention.kv_cache import DecodeState, PrefixCache
from models.attention.positions import AbsolutePositionEmbedding
from models.common.layers import Embedding, normal
from models.common.masks import (
    NO_WINDOW,
    causal_mask,
    pad_right,
    sliding_window_mask,
    valid_memory_mask,
)
from models.common.output_head import make_head
from models.transformer.config import Config
from models.transformer.stack import DecodeContext, Stack

ADAPTIVE_EMBEDDING = "models.common.adaptive_softmax:AdaptiveEmbedding"

# --- Embeddings ----------------------------------------------------------------------


def make_embedding(config: Config, vocab_size: int) -> nn.Module:
    """Returns the token embedding, adaptive if clusters or a width are configured."""
    if not config.is_adaptive:
        return Embedding(vocab_size, config.width, config.embedding_init)
    return pkgutil.resolve_name(ADAPTIVE_EMBEDDING)(
        vocab_size,
        config.width,
        embedding_width=config.embedding_width or config.width,
        cutoffs=tuple(config.cutoffs),
        div_val=config.div_val,
        projection_init=config.kernel_init or normal(config.width**-0.5),
        init=config.embedding_init,
    )


def make_position_embedding(config: Config) -> AbsolutePositionEmbedding:
    """Returns the module that adds absolute positions to embedded tokens."""
    return AbsolutePositionEmbedding(
        config.position_encoding, config.width, config.max_positions
    )


# --- Language model ------------------------------------------------------------------


class LanguageModel(api.LanguageModel):
    """Decoder-only Transformer (Vaswani et al. 2017)."""

    config: Config

    def setup(self):
        config = self.config
        self.embedding = make_embedding(config, self.vocab_size)
        self.position_embedding = make_position_embedding(config)
        self.stack = Stack(config, cross=False)
        self.head = make_head(config, self.vocab_size, self.embedding)

    def __call__(
        self, tokens: Int[Array, "B T"], carry: PyTree, *, train: bool
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        length = tokens.shape[1]
        mask = causal_mask(length, length)
        context = self.stack.attention_context(mask, length, train=train)
        x = self.embed(tokens, context.positions)
        return self.stack(x, context, train=train)[0], carry

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """Computes E[token] * embedding_scale + PE."""
        x = self.embedding(tokens, self.config.compute_dtype)
        return self.position_embedding(x * self.config.embedding_scale, positions)

    def prefix_cache(self, carry: PyTree, batch_size: int) -> PrefixCache:
        """Returns the carry as keys and values, oldest first."""
        return self.stack.prefix_cache(carry, batch_size)

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
        """
        prompt, mask = pad_right(prompt, prompt_mask)
        batch_size, length = prompt.shape
        memory, window = self.prefix_cache(carry, batch_size), self.window(carry)
        valid = jnp.concatenate([memory.valid, mask], axis=1)
        attention_mask = valid[:, None] & causal_mask(length, valid.shape[1])
        attention_mask &= sliding_window_mask(length, valid.shape[1], window)
        context = self.stack.attention_context(
            attention_mask, length, first_position=memory.next_position[0], train=False
        )
        x = self.embed(prompt, context.positions)
        _, _, kv = self.stack(x, context, past=memory.kv, train=False)
        padding = length - mask.sum(axis=1)
        align_right = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=-2))
        kv = jax.tree.map(lambda slots: align_right(slots, padding), kv)
        valid = align_right(valid[..., None], padding)[..., 0]
        prefix = PrefixCache(kv, valid, memory.next_position + length - padding)
        return self.stack.init_decoding(prefix, max_steps, window=window)

    def step(
        self, context: DecodeContext, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        embed = functools.partial(self.embed, token)
        state, x = self.stack.step(context, state, embed)
        return state, self.logits(x)


# --- Encoder-decoder -----------------------------------------------------------------


class Seq2Seq(api.Seq2Seq):
    """Encoder-decoder Transformer (Vaswani et al. 2017).

    The carry is (), or a named tuple with a memory of layer inputs for each side.
    """

    config: Config

    def setup(self):
        config = self.config
        self.create_embeddings(functools.partial(make_embedding, config))
        self.source_position_embedding = make_position_embedding(config)
        self.target_position_embedding = make_position_embedding(config)
        self.encoder = Stack(config, cross=False)
        self.decoder = Stack(config, cross=True)
        self.head = make_head(config, self.target_vocab_size, self.target_embedding)

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
        source_memory, target_memory = carry or (None, None)
        encoded, source_inputs = self.encode(
            source, source_mask, source_memory, train=train
        )
        length = target_in.shape[1]
        mask = causal_mask(length, length) & target_mask[:, None]
        context = self.decoder.attention_context(
            prepend_memory_mask(target_memory, mask), length, train=train
        )
        x, inputs, _ = self.decoder(
            self.embed_target(target_in, context.positions),
            context,
            past=target_memory.hidden if target_memory else None,
            source=(encoded, source_mask[:, None]),
            train=train,
        )
        if carry:
            source_length = source_mask.sum(axis=1, dtype=jnp.int32)
            target_length = target_mask.sum(axis=1, dtype=jnp.int32)
            carry = carry._replace(
                encoder=source_memory.append(source_inputs, source_length),
                decoder=target_memory.append(inputs, target_length),
            )
        return x, carry

    def embed_target(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """Computes E[token] * embedding_scale + PE."""
        x = self.target_embedding(tokens, self.config.compute_dtype)
        x *= self.config.embedding_scale
        return self.target_position_embedding(x, positions)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        memory: PyTree,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B S D"], tuple[Float[Array, "B S D"], ...]]:
        """Returns the source's hidden states and the input of each layer."""
        length = source.shape[1]
        context = self.encoder.attention_context(
            prepend_memory_mask(memory, source_mask[:, None]),
            length,
            min_relative_position=1 - length,
            train=train,
        )
        x = self.source_embedding(source, self.config.compute_dtype)
        x *= self.config.embedding_scale
        x = self.source_position_embedding(x, context.positions)
        past = memory.hidden if memory else None
        return self.encoder(x, context, past=past, train=train)[:2]

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: PyTree,
        *,
        max_steps: int = 256,
    ) -> tuple[DecodeContext, DecodeState]:
        source_memory, target_memory = carry or (None, None)
        encoded, _ = self.encode(source, source_mask, source_memory, train=False)
        prefix = self.decoder.prefix_cache(target_memory, source.shape[0])
        return self.decoder.init_decoding(
            prefix, max_steps, encoded=encoded, source_mask=source_mask[:, None]
        )

    def step(
        self, context: DecodeContext, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        embed = functools.partial(self.embed_target, token)
        state, x = self.decoder.step(context, state, embed)
        return state, self.logits(x)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """Returns the last layer's cross-attention weights, averaged over heads."""
        last = f"layers_{self.config.layers - 1}"
        (weights,) = intermediates["decoder"][last]["cross_attention"]["attention"]
        return weights.mean(axis=1)


def prepend_memory_mask(memory: PyTree, mask: Bool[Array, "B #T S"]) -> Array:
    """Extends the mask of a text by the valid slots of a memory before it."""
    if not memory:
        return mask
    shape = (*mask.shape[:2], memory.length)
    valid = valid_memory_mask(memory.valid_length, memory.length)
    return jnp.concatenate([jnp.broadcast_to(valid, shape), mask], axis=-1)
