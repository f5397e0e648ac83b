"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need").

As a Seq2Seq it is the paper's encoder-decoder; as a LanguageModel its decoder
without cross-attention. It remembers nothing from call to call: its carry is
empty.

Deviations from the paper, both by config: `norm="pre"` normalises before each
sublayer and once more after the last; attention weights have a dropout of their
own (`attention_dropout`), as in the authors' code.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention import MultiHeadAttention, Projected, ProjectedSource
from models.cache import (
    LayerCache,
    make_cache,
    merge_hypotheses,
    visible_slots,
    write_cache,
)
from models.heads import Head, Predictor
from models.layers import (
    Embedding,
    FeedForward,
    LayerNorm,
    Residual,
    check_sizes,
    normal,
    sinusoids,
)
from models.masks import causal_mask, pad_left, token_positions


@dataclasses.dataclass(frozen=True)
class Config:
    """The keys of `cfg.model`; `configs/base.py` says what each means."""

    name: str
    layers: int
    width: int
    heads: int
    feed_forward: int
    norm: str
    tie_embeddings: bool
    dropout: float
    attention_dropout: float

    def __post_init__(self):
        check_sizes(self)
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} is not a multiple of "
                f"model.heads={self.heads}"
            )
        if self.norm not in ("pre", "post"):
            raise ValueError(f"model.norm={self.norm!r} is neither 'pre' nor 'post'")

    @property
    def weights_dropout(self) -> float:
        """Dropout of attention weights; `dropout=0` switches it off too."""
        return self.attention_dropout if self.dropout else 0.0


class Layer(nn.Module):
    """A layer of the encoder or, with `cross`, of the decoder."""

    width: int
    heads: int
    feed_forward: int
    norm: str
    dropout: float
    attention_dropout: float
    cross: bool

    def setup(self):
        attention = (self.heads, self.width, self.attention_dropout)
        self.self_attention = MultiHeadAttention(*attention)
        self.self_residual = Residual(self.norm, self.dropout)
        if self.cross:
            self.cross_attention = MultiHeadAttention(*attention)
            self.cross_residual = Residual(self.norm, self.dropout)
        self.transform = FeedForward(self.width, self.feed_forward, self.dropout)
        self.transform_residual = Residual(self.norm, self.dropout)

    def project_source(self, encoded: Float[Array, "B E D"]) -> ProjectedSource:
        """Keys and values of the encoder's output, once a sentence."""
        return self.cross_attention.project(encoded)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T T"],
        source: ProjectedSource | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], Projected]:
        """The layer's output, and the keys and values a cache would keep."""
        y = self.self_residual.enter(x)
        projected = self.self_attention.project(y)
        y = self.self_attention(y, projected, mask, train=train)
        x = self.self_residual.leave(x, y, train=train)
        return self._rest(x, source, source_mask, train=train), projected

    def step(
        self,
        x: Float[Array, "B K D"],
        cache: LayerCache,
        slot: Int[Array, ""],
        visible: Bool[Array, "N 1 L"],
        source: ProjectedSource | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
    ) -> tuple[Float[Array, "B K D"], LayerCache]:
        """One token of each hypothesis."""
        y = self.self_residual.enter(x)
        cache = write_cache(cache, self.self_attention.project(y), slot)
        rows, keys, values = map(merge_hypotheses, (y, *cache))
        y = self.self_attention(rows[:, None], (keys, values), visible, train=False)
        x = self.self_residual.leave(x, y.reshape(x.shape), train=False)
        return self._rest(x, source, source_mask, train=False), cache

    def _rest(self, x, source, source_mask, *, train):
        """Cross-attention and feed-forward; hypotheses are queries of their row."""
        if self.cross:
            y = self.cross_residual.enter(x)
            y = self.cross_attention(y, source, source_mask, train=train)
            x = self.cross_residual.leave(x, y, train=train)
        y = self.transform(self.transform_residual.enter(x), train=train)
        return self.transform_residual.leave(x, y, train=train)


class Stack(nn.Module):
    """N layers and, for pre-norm, the normalisation after the last."""

    config: Config
    cross: bool

    def setup(self):
        config = self.config
        self.layers = [
            Layer(
                config.width,
                config.heads,
                config.feed_forward,
                config.norm,
                config.dropout,
                config.weights_dropout,
                self.cross,
            )
            for _ in range(config.layers)
        ]
        if config.norm == "pre":
            self.final_norm = LayerNorm()

    def project_source(
        self, encoded: Float[Array, "B E D"]
    ) -> tuple[ProjectedSource, ...]:
        """Each layer's keys and values of the encoder's output."""
        return tuple(layer.project_source(encoded) for layer in self.layers)

    def __call__(self, x, mask, sources=None, source_mask=None, *, train):
        """The stack's output and each layer's keys and values."""
        kept = []
        for layer, source in zip(self.layers, self._each(sources), strict=True):
            x, projected = layer(x, mask, source, source_mask, train=train)
            kept.append(projected)
        return self._finish(x), tuple(kept)

    def step(self, x, caches, slot, visible, sources=None, source_mask=None):
        """One token of each hypothesis through all layers and their caches."""
        hypotheses = x.shape[1]
        visible = jnp.repeat(visible, hypotheses, axis=0)
        written = []
        for layer, cache, source in zip(
            self.layers, caches, self._each(sources), strict=True
        ):
            x, cache = layer.step(x, cache, slot, visible, source, source_mask)
            written.append(cache)
        return self._finish(x), tuple(written)

    def _each(self, sources):
        return sources if self.cross else (None,) * len(self.layers)

    def _finish(self, x):
        return self.final_norm(x) if self.config.norm == "pre" else x


def embed(
    table: Embedding, tokens: Int[Array, "B T"], positions: Int[Array, "#B #T"]
) -> Float[Array, "B T D"]:
    """sqrt(D) E[token] + PE(position), Vaswani et al. 2017, sections 3.4 and 3.5."""
    waves = sinusoids(positions, table.width, interleaved=True)
    return table(tokens) * table.width**0.5 + waves


class PromptContext(NamedTuple):
    """What a prompt fixes: which of the first slots are padding, and how many."""

    mask: Bool[Array, "B P"]
    length: Int[Array, "B"]


class SourceContext(NamedTuple):
    """What a source sentence fixes: keys and values a layer, and its padding."""

    projected: tuple[ProjectedSource, ...]
    mask: Bool[Array, "B 1 S"]


class State(NamedTuple):
    """Caches [B, K, L, H, Dh] a layer and the next free slot of all rows."""

    caches: tuple[LayerCache, ...]
    slot: Int[Array, ""]


class LanguageModel(Predictor):
    """The decoder alone, over a segment of text; see the contract in README.md."""

    config: Config
    vocab_size: int

    def setup(self):
        config = self.config
        init = normal(config.width**-0.5)
        self.embedding = Embedding(self.vocab_size, config.width, init)
        self.stack = Stack(config, cross=False)
        tied = self.embedding if config.tie_embeddings else None
        self.head = Head(self.vocab_size, config.width, init, tied)
        self.drop = nn.Dropout(config.dropout)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from segment to segment."""
        return ()

    def __call__(
        self, tokens: Int[Array, "B T"], carry: tuple, *, train: bool
    ) -> tuple[Float[Array, "B T D"], tuple]:
        """Hidden states of a segment, each of what stands before it."""
        length = tokens.shape[1]
        x = embed(self.embedding, tokens, jnp.arange(length)[None])
        x = self.drop(x, deterministic=not train)
        x, _ = self.stack(x, causal_mask(length, length), train=train)
        return x, carry

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[PromptContext, State]:
        """Reads a prompt; `max_steps` tokens may follow it."""
        prompt, mask = pad_left(prompt, prompt_mask)
        length = prompt.shape[1]
        x = embed(self.embedding, prompt, token_positions(mask))
        visible = causal_mask(length, length) & mask[:, None]
        _, kept = self.stack(x, visible, train=False)
        caches = tuple(make_cache(projected, max_steps) for projected in kept)
        context = PromptContext(mask, mask.sum(axis=1))
        return context, State(caches, jnp.asarray(length))

    def step(
        self, context: PromptContext, state: State, token: Int[Array, "B K"]
    ) -> tuple[State, Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        padding = context.mask.shape[1] - context.length
        x = embed(self.embedding, token, (state.slot - padding)[:, None])
        visible = visible_slots(context.mask, state.caches[0][0].shape[2], state.slot)
        x, caches = self.stack.step(x, state.caches, state.slot, visible)
        return State(caches, state.slot + 1), self.logits(x)


class Seq2Seq(Predictor):
    """The encoder-decoder; see the contract in README.md.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output layer.
    """

    config: Config
    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def setup(self):
        config = self.config
        init = normal(config.width**-0.5)
        self.target_embedding = Embedding(self.target_vocab_size, config.width, init)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = Embedding(
                self.source_vocab_size, config.width, init
            )
        self.encoder = Stack(config, cross=False)
        self.decoder = Stack(config, cross=True)
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = Head(self.target_vocab_size, config.width, init, tied)
        self.drop = nn.Dropout(config.dropout)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from sentence to sentence."""
        return ()

    def _encode(self, source, source_mask, *, train):
        x = embed(self.source_embedding, source, jnp.arange(source.shape[1])[None])
        x = self.drop(x, deterministic=not train)
        x, _ = self.encoder(x, source_mask[:, None], train=train)
        return SourceContext(self.decoder.project_source(x), source_mask[:, None])

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        context = self._encode(source, source_mask, train=train)
        length = target_in.shape[1]
        x = embed(self.target_embedding, target_in, jnp.arange(length)[None])
        x = self.drop(x, deterministic=not train)
        mask = causal_mask(length, length) & target_mask[:, None]
        x, _ = self.decoder(x, mask, *context, train=train)
        return x, carry

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[SourceContext, State]:
        """Encodes a sentence; its translation may have `max_steps` tokens."""
        context = self._encode(source, source_mask, train=False)
        config = self.config
        shape = (len(source), 0, config.heads, config.width // config.heads)
        empty = jnp.zeros(shape, jnp.float32)
        caches = (make_cache((empty, empty), max_steps),) * config.layers
        return context, State(caches, jnp.asarray(0))

    def step(
        self, context: SourceContext, state: State, token: Int[Array, "B K"]
    ) -> tuple[State, Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        x = embed(self.target_embedding, token, state.slot[None, None])
        slots = state.caches[0][0].shape[2]
        visible = jnp.arange(slots)[None, None] <= state.slot
        visible = jnp.broadcast_to(visible, (len(token), 1, slots))
        x, caches = self.decoder.step(x, state.caches, state.slot, visible, *context)
        return State(caches, state.slot + 1), self.logits(x)
