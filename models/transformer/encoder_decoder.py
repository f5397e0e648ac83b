"""An encoder-decoder made of two stacks.

The models of both Transformers add what they remember.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
from models.common.masks import NO_WINDOW, causal_mask, valid_memory_mask
from models.common.output_head import SequenceModel
from models.transformer.config import StackConfig
from models.transformer.embeddings import make_embedding, make_head
from models.transformer.memory import Memory
from models.transformer.stack import Stack


class EncodedSource(NamedTuple):
    """What a source sentence fixes.

    Attributes:
      source: a layer's keys and values of the encoder's output each.
      mask: the source's padding.
      past: what the decoder remembers.
      distances: a layer's projected distances each, the same for all rows.
    """

    source: tuple[TransposedKV, ...]
    mask: Bool[Array, "B 1 E"]
    past: PrefixCache
    distances: tuple


class EncoderDecoder(SequenceModel):
    """The paper's model (Vaswani et al. 2017); see the contract in README.md.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output layer.
    """

    config: StackConfig
    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def setup(self):
        config = self.config
        self.target_embedding = make_embedding(config, self.target_vocab_size)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = make_embedding(config, self.source_vocab_size)
        place = (config.position_encoding, config.width, config.max_positions)
        self.source_position_embedding, self.target_position_embedding = (
            AbsolutePositionEmbedding(*place),
            AbsolutePositionEmbedding(*place),
        )
        self.encoder = Stack(config, cross=False)
        self.decoder = Stack(config, cross=True)
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = make_head(config, self.target_vocab_size, tied)

    def embed_source(
        self, tokens: Int[Array, "B S"], places: Int[Array, "#B #S"]
    ) -> Float[Array, "B S D"]:
        """sqrt(D) E[token], with its place (Vaswani et al. 2017, section 3.4)."""
        x = self.source_embedding(tokens, self.config.compute_dtype)
        return self.source_position_embedding(x * self.config.width**0.5, places)

    def embed_target(
        self, tokens: Int[Array, "B T"], places: Int[Array, "#B #T"]
    ) -> Float[Array, "B T D"]:
        """The same on the other side."""
        x = self.target_embedding(tokens, self.config.compute_dtype)
        return self.target_position_embedding(x * self.config.width**0.5, places)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        memory: Memory | None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B S D"], tuple[Float[Array, "B S D"], ...]]:
        """The source's hidden states and the input of each layer."""
        length = source.shape[1]
        mask = beside(memory, source_mask[:, None])
        attention_context = self.encoder.attention_context(
            mask, length, nearest=1 - length, train=train
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
        """The target's hidden states and the input of each layer."""
        length = target_in.shape[1]
        own = causal_mask(length, length) & target_mask[:, None]
        attention_context = self.decoder.attention_context(
            beside(memory, own), length, train=train
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

    def begin(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        memory: Memory | None,
        past: PrefixCache | None,
        max_steps: int,
    ) -> tuple[EncodedSource, DecodeState]:
        """Encodes a sentence; its translation may have `max_steps` tokens."""
        config = self.config
        encoded, _ = self.encode(source, source_mask, memory, train=False)
        if past is None:
            past = empty_prefix(
                len(source),
                config.layers,
                config.heads,
                config.resolved_head_dim,
                config.compute_dtype,
            )
        past = past.transpose_keys()
        distances = self.decoder.project_relative_positions(
            past.num_slots + max_steps - 1
        )
        projected = tuple(map(transpose_keys, self.decoder.project_source(encoded)))
        context = EncodedSource(projected, source_mask[:, None], past, distances)
        return context, init_decode_state(past, max_steps)

    def step(
        self, context: EncodedSource, state: DecodeState, token: Int[Array, "B N"]
    ) -> tuple[DecodeState, Float[Array, "B N V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        past, state = context.past, state.begin_step()
        seen = step_masks(past, state, context.distances, jnp.asarray(NO_WINDOW))
        x = self.embed_target(token, seen[0].positions)
        x, caches = self.decoder.step(
            x, past.kv, state.kv, state.step, seen, context.source, context.mask
        )
        return state.end_step(caches), self.logits(x)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """The last layer's attention to the source of what was sown, over all heads."""
        last = f"layers_{self.config.layers - 1}"
        (weights,) = intermediates["decoder"][last]["cross_attention"]["attention"]
        return weights.mean(axis=1)


def beside(memory: Memory | None, mask: Bool[Array, "B #T S"]) -> Array:
    """A mask over a memory, of which all that is filled is seen, and a text."""
    if memory is None:
        return mask
    shape = (*mask.shape[:2], memory.length)
    remembered = valid_memory_mask(memory.valid_length, memory.length)
    return jnp.concatenate([jnp.broadcast_to(remembered, shape), mask], axis=-1)
