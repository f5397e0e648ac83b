"""Transformer-XL (Dai et al. 2019, "Attentive Language Models Beyond a
Fixed-Length Context").

As a LanguageModel it is the paper's: relative attention over the segment and a
memory of the segments before. As a Seq2Seq, which the paper does not have, both
encoder and decoder attend relatively, the decoder also to the encoder's output
by ordinary multi-head attention; each side remembers the sentences before when
`memory_length` is not 0.

As in the authors' code: u and v are shared between layers; embeddings are scaled
by sqrt(D); dropout also meets the position encodings and the last layer's output.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.attention import (
    MultiHeadAttention,
    Projected,
    ProjectedSource,
    RelativeMultiHeadAttention,
)
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
from models.masks import causal_mask, filled_mask, pad_right
from models.memory import Memory, empty_memory, extend_memory

Biases = tuple[Float[Array, "H Dh"], Float[Array, "H Dh"]]

INIT = normal(0.02)  # of every kernel and table, as in the authors' scripts


@dataclasses.dataclass(frozen=True)
class Config:
    """The keys of `cfg.model`; `configs/base.py` says what each means."""

    name: str
    layers: int
    width: int
    heads: int
    feed_forward: int
    norm: str
    memory_length: int
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
    """A layer with relative self-attention and, with `cross`, a view of a source."""

    width: int
    heads: int
    feed_forward: int
    norm: str
    dropout: float
    attention_dropout: float
    cross: bool

    def setup(self):
        attention = {
            "heads": self.heads,
            "width": self.width,
            "dropout": self.attention_dropout,
            "kernel_init": INIT,
        }
        self.self_attention = RelativeMultiHeadAttention(**attention)
        self.self_residual = Residual(self.norm, self.dropout)
        if self.cross:
            self.cross_attention = MultiHeadAttention(**attention, use_bias=False)
            self.cross_residual = Residual(self.norm, self.dropout)
        self.transform = FeedForward(
            self.width, self.feed_forward, self.dropout, kernel_init=INIT
        )
        self.transform_residual = Residual(self.norm, self.dropout)

    def project_source(self, encoded: Float[Array, "B E D"]) -> ProjectedSource:
        """Keys and values of the encoder's output, once a sentence."""
        return self.cross_attention.project(encoded)

    def project_memory(self, memory: Float[Array, "B M D"]) -> Projected:
        """Keys and values of remembered inputs."""
        return self.self_attention.project(self.self_residual.enter(memory))

    def project_positions(self, encodings: Float[Array, "C D"]) -> Array:
        """W_kR R for a row of distances."""
        return self.self_attention.project_positions(encodings)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B M D"],
        encodings: Float[Array, "C D"],
        biases: Biases,
        mask: Bool[Array, "#B #T S"],
        source: ProjectedSource | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], Projected]:
        """The layer's output, and keys and values of memory and segment."""
        content = self.self_residual.enter(jnp.concatenate([memory, x], axis=1))
        projected = self.self_attention.project(content)
        y = self.self_attention(
            content[:, memory.shape[1] :],
            projected,
            self.project_positions(encodings),
            biases,
            mask,
            train=train,
        )
        x = self.self_residual.leave(x, y, train=train)
        return self._rest(x, source, source_mask, train=train), projected

    def step(
        self,
        x: Float[Array, "B K D"],
        cache: LayerCache,
        slot: Int[Array, ""],
        positions: Float[Array, "L H Dh"],
        biases: Biases,
        visible: Bool[Array, "N 1 L"],
        source: ProjectedSource | None = None,
        source_mask: Bool[Array, "B 1 E"] | None = None,
    ) -> tuple[Float[Array, "B K D"], LayerCache]:
        """One token of each hypothesis; `positions` fall from distance L-1 to 0."""
        y = self.self_residual.enter(x)
        cache = write_cache(cache, self.self_attention.project(y), slot)
        rows, keys, values = map(merge_hypotheses, (y, *cache))
        distances = jnp.roll(positions, slot - (len(positions) - 1), axis=0)
        y = self.self_attention(
            rows[:, None], (keys, values), distances, biases, visible, train=False
        )
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
    """N layers with one pair of biases u and v."""

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
        shape = (config.heads, config.width // config.heads)
        init = nn.with_logical_partitioning(INIT, ("heads", "kv"))
        self.content_bias = self.param("content_bias", init, shape)  # u
        self.position_bias = self.param("position_bias", init, shape)  # v
        self.drop = nn.Dropout(config.dropout)
        if config.norm == "pre":
            self.final_norm = LayerNorm()

    @property
    def _biases(self):
        return self.content_bias, self.position_bias

    def project_source(
        self, encoded: Float[Array, "B E D"]
    ) -> tuple[ProjectedSource, ...]:
        """Each layer's keys and values of the encoder's output."""
        return tuple(layer.project_source(encoded) for layer in self.layers)

    def project_memory(self, memory: Memory) -> tuple[Projected, ...]:
        """Each layer's keys and values of its memory."""
        pairs = zip(self.layers, memory.hidden, strict=True)
        return tuple(layer.project_memory(hidden) for layer, hidden in pairs)

    def project_positions(self, num_slots: int) -> tuple[Float[Array, "L H Dh"], ...]:
        """Each layer's W_kR R for the distances L-1 down to 0."""
        encodings = distance_encodings(num_slots - 1, 0, self.config.width)
        return tuple(layer.project_positions(encodings) for layer in self.layers)

    def __call__(
        self, x, memory, mask, sources=None, source_mask=None, *, farthest, train
    ):
        """The output, each layer's input, and its keys and values.

        Args:
          farthest: the smallest distance a query meets: 0 if it sees no key
            after itself, 1 - T if it sees all of its segment.
        """
        config = self.config
        longest = memory.length + x.shape[1] - 1
        encodings = distance_encodings(longest, farthest, config.width)
        x = self.drop(x, deterministic=not train)
        encodings = self.drop(encodings, deterministic=not train)
        inputs, kept = [], []
        for layer, old, source in zip(
            self.layers, memory.hidden, self._each(sources), strict=True
        ):
            inputs.append(x)
            x, projected = layer(
                x, old, encodings, self._biases, mask, source, source_mask, train=train
            )
            kept.append(projected)
        x = self.drop(self._finish(x), deterministic=not train)
        return x, tuple(inputs), tuple(kept)

    def step(self, x, caches, slot, positions, visible, sources=None, source_mask=None):
        """One token of each hypothesis through all layers and their caches."""
        visible = jnp.repeat(visible, x.shape[1], axis=0)
        written = []
        for layer, cache, distances, source in zip(
            self.layers, caches, positions, self._each(sources), strict=True
        ):
            x, cache = layer.step(
                x, cache, slot, distances, self._biases, visible, source, source_mask
            )
            written.append(cache)
        return self._finish(x), tuple(written)

    def _each(self, sources):
        return sources if self.cross else (None,) * len(self.layers)

    def _finish(self, x):
        return self.final_norm(x) if self.config.norm == "pre" else x


def distance_encodings(first: int, last: int, width: int) -> Float[Array, "C D"]:
    """R for the distances `first` down to `last` (Dai et al. 2019, section 3.3)."""
    distances = jnp.arange(first, last - 1, -1)
    return sinusoids(distances, width, interleaved=False)


def embed(table: Embedding, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """sqrt(D) E[token]."""
    return table(tokens) * table.width**0.5


class Context(NamedTuple):
    """What does not change while tokens are generated.

    Attributes:
      slots: which of the first slots of the caches hold a token, [B, P].
      positions: a layer's W_kR R each, [L, H, Dh], the same for all rows.
      projected: a layer's keys and values of the source each, or ().
      source_mask: the source's padding, or None.
    """

    slots: Bool[Array, "B P"]
    positions: tuple[Float[Array, "L H Dh"], ...]
    projected: tuple[ProjectedSource, ...] = ()
    source_mask: Bool[Array, "B 1 E"] | None = None


class State(NamedTuple):
    """Caches [B, K, L, H, Dh] a layer and the next free slot of all rows."""

    caches: tuple[LayerCache, ...]
    slot: Int[Array, ""]


class LanguageModel(Predictor):
    """The paper's model; see the contract in README.md."""

    config: Config
    vocab_size: int

    def setup(self):
        config = self.config
        self.embedding = Embedding(self.vocab_size, config.width, INIT)
        self.stack = Stack(config, cross=False)
        tied = self.embedding if config.tie_embeddings else None
        self.head = Head(self.vocab_size, config.width, INIT, tied)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Memory:
        """An empty memory of `memory_length` slots."""
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        return empty_memory(batch_size, length, config.layers, config.width)

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Memory, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Memory]:
        """Hidden states of a segment, each of its memory and what stands before."""
        rows, length = tokens.shape
        mask = segment_mask(carry, length)
        x, inputs, _ = self.stack(
            embed(self.embedding, tokens), carry, mask, farthest=0, train=train
        )
        return x, extend_memory(carry, inputs, jnp.full(rows, length, jnp.int32))

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: Memory,
        *,
        max_steps: int = 256,
    ) -> tuple[Context, State]:
        """Reads a prompt after a memory; `max_steps` tokens may follow it.

        The prompt stands next to the memory while it is read; then each row
        moves right over its padding, so that all rows end in the same slot.
        """
        prompt, mask = pad_right(prompt, prompt_mask)
        length = prompt.shape[1]
        _, _, kept = self.stack(
            embed(self.embedding, prompt),
            carry,
            segment_mask(carry, length),
            farthest=0,
            train=False,
        )
        padding = length - mask.sum(axis=1)
        roll = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=0))
        kept = jax.tree.map(lambda slots: roll(slots, padding), kept)
        remembered = filled_mask(carry.filled, carry.length)[:, 0]
        slots = roll(jnp.concatenate([remembered, mask], axis=1), padding)
        caches = tuple(make_cache(projected, max_steps) for projected in kept)
        used = slots.shape[1]
        positions = self.stack.project_positions(used + max_steps)
        return Context(slots, positions), State(caches, jnp.asarray(used))

    def step(
        self, context: Context, state: State, token: Int[Array, "B K"]
    ) -> tuple[State, Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        x = embed(self.embedding, token)
        x, caches = self.stack.step(
            x,
            state.caches,
            state.slot,
            context.positions,
            visible_slots(context.slots, len(context.positions[0]), state.slot),
        )
        return State(caches, state.slot + 1), self.logits(x)


def segment_mask(memory: Memory, length: int) -> Bool[Array, "B T S"]:
    """Causal within the segment, and whatever the memory holds."""
    total = memory.length + length
    filled = filled_mask(memory.filled + length, total)
    return causal_mask(length, total) & filled


class Memories(NamedTuple):
    """What both sides remember of the sentences before."""

    encoder: Memory
    decoder: Memory


class Seq2Seq(Predictor):
    """Encoder-decoder with relative attention; see the contract in README.md.

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
        self.target_embedding = Embedding(self.target_vocab_size, config.width, INIT)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = Embedding(
                self.source_vocab_size, config.width, INIT
            )
        self.encoder = Stack(config, cross=False)
        self.decoder = Stack(config, cross=True)
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = Head(self.target_vocab_size, config.width, INIT, tied)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Memories | tuple:
        """Two empty memories; () where the memory has no slots."""
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        if not length:
            return ()
        empty = empty_memory(batch_size, length, config.layers, config.width)
        return Memories(empty, empty)

    def _memories(self, carry, rows):
        config = self.config
        nothing = empty_memory(rows, 0, config.layers, config.width)
        return carry or Memories(nothing, nothing)

    def _encode(self, source, source_mask, memory, *, train):
        """The source's hidden states and the inputs of each layer."""
        remembered = filled_mask(memory.filled, memory.length)
        x, inputs, _ = self.encoder(
            embed(self.source_embedding, source),
            memory,
            jnp.concatenate([remembered, source_mask[:, None]], axis=-1),
            farthest=1 - source.shape[1],
            train=train,
        )
        return x, inputs

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: Memories | tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T D"], Memories | tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        memories = self._memories(carry, len(source))
        encoded, source_inputs = self._encode(
            source, source_mask, memories.encoder, train=train
        )
        x, target_inputs, _ = self.decoder(
            embed(self.target_embedding, target_in),
            memories.decoder,
            segment_mask(memories.decoder, target_in.shape[1]),
            self.decoder.project_source(encoded),
            source_mask[:, None],
            farthest=0,
            train=train,
        )
        if not carry:
            return x, carry
        encoder = extend_memory(carry.encoder, source_inputs, source_mask.sum(axis=1))
        decoder = extend_memory(carry.decoder, target_inputs, target_mask.sum(axis=1))
        return x, Memories(encoder, decoder)

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: Memories | tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[Context, State]:
        """Encodes a sentence; its translation may have `max_steps` tokens."""
        memories = self._memories(carry, len(source))
        encoded, _ = self._encode(source, source_mask, memories.encoder, train=False)
        memory = memories.decoder
        context = Context(
            filled_mask(memory.filled, memory.length)[:, 0],
            self.decoder.project_positions(memory.length + max_steps),
            self.decoder.project_source(encoded),
            source_mask[:, None],
        )
        kept = self.decoder.project_memory(memory)
        caches = tuple(make_cache(projected, max_steps) for projected in kept)
        return context, State(caches, jnp.asarray(memory.length))

    def step(
        self, context: Context, state: State, token: Int[Array, "B K"]
    ) -> tuple[State, Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        x = embed(self.target_embedding, token)
        x, caches = self.decoder.step(
            x,
            state.caches,
            state.slot,
            context.positions,
            visible_slots(context.slots, len(context.positions[0]), state.slot),
            context.projected,
            context.source_mask,
        )
        return State(caches, state.slot + 1), self.logits(x)
