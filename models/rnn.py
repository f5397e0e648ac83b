"""Recurrent networks with additive attention.

As a Seq2Seq: the encoder-decoder of Bahdanau et al. (2015, "Neural Machine
Translation by Jointly Learning to Align and Translate"). As a LanguageModel:
recurrent layers whose output also attends to its own last states (as Daniluk et
al. 2017, "Frustratingly Short Attention Spans in Neural Language Modeling").

Deviations from Bahdanau et al.: the reset gate acts after the recurrent product
(see `GRU`), which lets one product serve all gates; the output layer is
tanh(U s_i + V y_{i-1} + C c_i) with the new state s_i, not a maxout of the old;
there may be several layers, with dropout before each and before the output.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.heads import Head, Predictor
from models.layers import Dense, Embedding, check_sizes, normal, zeros
from models.masks import pad_left
from models.scores import AdditiveAttention

INIT = normal(0.1)  # of tables: large enough that gates leave 1/2 early


@dataclasses.dataclass(frozen=True)
class Config:
    """The keys of `cfg.model`; `configs/base.py` says what each means."""

    name: str
    layers: int
    width: int
    embedding_width: int
    attention_width: int
    memory_length: int
    tie_embeddings: bool
    dropout: float

    def __post_init__(self):
        check_sizes(self)


class GRU(nn.Module):
    """Gated recurrent units (Cho et al. 2014), the reset gate after the product.

        r = sigmoid(W_r x + U_r h),  z = sigmoid(W_z x + U_z h)
        n = tanh(W_n x + b + r * (U_n h + b')),  h' = (1 - z) * n + z * h

    This is the form of cuDNN and PyTorch; the paper has U_n (r * h).
    """

    width: int

    def setup(self):
        self.input = Dense((3 * self.width,), ("embed", "mlp"))
        self.recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(self._orthogonal_gates, ("embed", "mlp")),
            (self.width, 3 * self.width),
        )
        self.candidate_bias = self.param(
            "candidate_bias",
            nn.with_logical_partitioning(zeros, ("mlp",)),
            (self.width,),
        )

    def _orthogonal_gates(self, key, shape, dtype=jnp.float32):
        """One orthogonal matrix a gate, side by side."""
        one = nn.initializers.orthogonal()
        gates = [one(k, (shape[0], shape[0]), dtype) for k in jax.random.split(key, 3)]
        return jnp.concatenate(gates, axis=1)

    def project(self, x: Float[Array, "... E"]) -> Float[Array, "... G"]:
        """W x + b for all gates: what of a step does not need the state."""
        return self.input(x)

    def step(
        self, state: Float[Array, "... D"], projected: Float[Array, "... G"]
    ) -> Float[Array, "... D"]:
        """The next state."""
        reset, update, candidate = jnp.split(projected, 3, axis=-1)
        from_state = jnp.split(state @ self.recurrent, 3, axis=-1)
        reset = nn.sigmoid(reset + from_state[0])
        update = nn.sigmoid(update + from_state[1])
        candidate = jnp.tanh(candidate + reset * (from_state[2] + self.candidate_bias))
        return (1 - update) * candidate + update * state

    def __call__(
        self,
        x: Float[Array, "B T E"],
        state: Float[Array, "B D"],
        mask: Bool[Array, "B T"],
        *,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B D"]]:
        """All states and the last. A masked step leaves the state as it is."""

        def one(cell, state, inputs):
            projected, keep = inputs
            state = jnp.where(keep[:, None], cell.step(state, projected), state)
            return state, state

        scan = nn.scan(
            one,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            reverse=reverse,
        )
        last, states = scan(self, state, (self.project(x), mask))
        return states, last


def no_state(rows: int, width: int) -> Float[Array, "B D"]:
    """The state before the first word."""
    return jnp.zeros((rows, width), jnp.float32)


class Readout(nn.Module):
    """tanh of a sum of linear maps: what is seen becomes what predicts."""

    width: int

    @nn.compact
    def __call__(self, *parts: Float[Array, "..."]) -> Float[Array, "..."]:
        joined = jnp.concatenate(parts, axis=-1)
        return jnp.tanh(Dense((self.width,), ("embed", "mlp"), name="join")(joined))


class Carry(NamedTuple):
    """What the language model hands to the next segment.

    Attributes:
      states: each layer's last state, [B, D].
      recent: the top layer's last N states, oldest first, [B, N, D].
      filled: how many of the N there are, [B].
    """

    states: tuple[Float[Array, "B D"], ...]
    recent: Float[Array, "B N D"]
    filled: Int[Array, "B"]


class State(NamedTuple):
    """The same while tokens are generated, for K hypotheses: [B, K, ...]."""

    states: tuple[Float[Array, "B K D"], ...]
    recent: Float[Array, "B K N D"]
    filled: Int[Array, "B K"]


class LanguageModel(Predictor):
    """Recurrent language model that attends to its last states.

        hidden_t = tanh(U h_t + C c_t),   c_t = attention(h_t; h_{t-N} .. h_{t-1})

    See the contract in README.md.
    """

    config: Config
    vocab_size: int

    def setup(self):
        config = self.config
        self.embedding = Embedding(self.vocab_size, config.embedding_width, INIT)
        self.layers = [GRU(config.width) for _ in range(config.layers)]
        self.additive = AdditiveAttention(config.attention_width)
        self.readout = Readout(config.embedding_width)
        tied = self.embedding if config.tie_embeddings else None
        self.head = Head(self.vocab_size, config.embedding_width, INIT, tied)
        self.drop = nn.Dropout(config.dropout)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Carry:
        """States of zero and none to attend to; N = `memory_length`."""
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        state = no_state(batch_size, config.width)
        recent = jnp.zeros((batch_size, length, config.width), jnp.float32)
        return Carry((state,) * config.layers, recent, jnp.zeros(batch_size, jnp.int32))

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Carry, *, train: bool
    ) -> tuple[Float[Array, "B T E"], Carry]:
        """Hidden states of a segment, each of all that stands before it."""
        return self._read(tokens, jnp.ones(tokens.shape, bool), carry, train=train)

    def _read(self, tokens, mask, carry, *, train):
        """Padding, where mask is False, stands before a row's first token."""
        x = self.embedding(tokens)
        last = []
        for layer, state in zip(self.layers, carry.states, strict=True):
            x, state = layer(self.drop(x, deterministic=not train), state, mask)
            last.append(state)
        contexts, carry = self._look_back(x, mask, carry, tuple(last))
        hidden = self.readout(self.drop(x, deterministic=not train), contexts)
        return self.drop(hidden, deterministic=not train), carry

    def _look_back(self, outputs, mask, carry, last):
        """The context of each output, [B, T, D], and the next carry."""
        window, length = carry.recent.shape[1], outputs.shape[1]
        padding = length - mask.sum(axis=1)
        roll = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=0))
        old = roll(jnp.pad(carry.recent, ((0, 0), (0, length), (0, 0))), padding)
        new = jnp.pad(outputs, ((0, 0), (window, 0), (0, 0)))
        place = jnp.arange(window + length) - padding[:, None]
        states = jnp.where((place < window)[..., None], old, new)
        there = place >= window - carry.filled[:, None]
        slots = jnp.arange(length)[:, None] + jnp.arange(window)  # [T, N]
        contexts = self._attend(outputs, states, slots, there)
        filled = jnp.minimum(carry.filled + length - padding, window)
        return contexts, jax.lax.stop_gradient(Carry(last, states[:, length:], filled))

    def _attend(self, outputs, states, slots, there):
        """Each output's view of the states in its slots."""
        batch, length, width = outputs.shape
        window = slots.shape[1]
        if not window:
            return jnp.zeros_like(outputs)
        rows = batch * length
        keys = self.additive.project_keys(states)[:, slots]
        contexts, weights = self.additive(
            outputs.reshape(rows, 1, width),
            keys.reshape(rows, window, -1),
            states[:, slots].reshape(rows, window, width),
            there[:, slots].reshape(rows, 1, window),
        )
        self.sow("intermediates", "attention", weights.reshape(batch, length, window))
        return contexts.reshape(batch, length, width)

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: Carry,
        *,
        max_steps: int = 256,
    ) -> tuple[tuple, State]:
        """Reads a prompt; any number of tokens may follow it."""
        _, carry = self._read(*pad_left(prompt, prompt_mask), carry, train=False)
        return (), State(*jax.tree.map(lambda leaf: leaf[:, None], carry))

    def step(
        self, context: tuple, state: State, token: Int[Array, "B K"]
    ) -> tuple[State, Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), state)
        hidden, carry = self(token.reshape(-1, 1), Carry(*rows), train=False)
        batch, hypotheses = token.shape
        split = jax.tree.map(
            lambda leaf: leaf.reshape(batch, hypotheses, *leaf.shape[1:]), carry
        )
        return State(*split), self.logits(hidden).reshape(batch, hypotheses, -1)


class Encoder(nn.Module):
    """Bidirectional layers (Schuster and Paliwal 1997), D a direction."""

    layers: int
    width: int
    dropout: float

    def setup(self):
        self.forward = [GRU(self.width) for _ in range(self.layers)]
        self.backward = [GRU(self.width) for _ in range(self.layers)]
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B S"], *, train: bool
    ) -> tuple[Float[Array, "B S D2"], Float[Array, "B D"]]:
        """The annotations, zero in the padding, and the last backward state."""
        start = no_state(len(x), self.width)
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = self.drop(x, deterministic=not train)
            onward, _ = forward(x, start, mask)
            back, first = backward(x, start, mask, reverse=True)
            x = jnp.concatenate([onward, back], axis=-1)
        return jnp.where(mask[..., None], x, 0), first


class Source(NamedTuple):
    """What a source sentence fixes: annotations h, keys U h, padding."""

    annotations: Float[Array, "B S D2"]
    keys: Float[Array, "B S A"]
    mask: Bool[Array, "B S"]


class Decoder(nn.Module):
    """Recurrent layers of which the first sees the context of its last state.

    c_i = attention(s_{i-1}; h),   s_i = GRU(s_{i-1}; y_{i-1}, c_i)
    """

    config: Config

    def setup(self):
        config = self.config
        width = config.width
        self.additive = AdditiveAttention(config.attention_width)
        self.from_context = Dense((3 * width,), ("embed", "mlp"), use_bias=False)
        self.cells = [GRU(width) for _ in range(config.layers)]
        self.first_state = Dense((width,), ("embed", "mlp"))
        self.readout = Readout(config.embedding_width)
        self.drop = nn.Dropout(config.dropout)

    def start(self, backward: Float[Array, "B D"]) -> tuple[Array, ...]:
        """s_0 = tanh(W_s h_1) of the backward encoder, for every layer."""
        return (jnp.tanh(self.first_state(backward)),) * self.config.layers

    def advance(self, states, projected, source: Source, *, train: bool):
        """One word of each of K hypotheses.

        Args:
          states: each layer's [B, K, D].
          projected: W y_{i-1} of the first layer, [B, K, 3D].

        Returns the new states, the contexts and the attention weights.
        """
        context, weights = self.additive(
            states[0], source.keys, source.annotations, source.mask[:, None]
        )
        projected = projected + self.from_context(context)
        new = []
        for depth, (cell, state) in enumerate(zip(self.cells, states, strict=True)):
            if depth:
                below = self.drop(new[-1], deterministic=not train)
                projected = cell.project(below)
            new.append(cell.step(state, projected))
        return tuple(new), context, weights

    def project(self, embedded: Float[Array, "B T E"]) -> Float[Array, "B T G"]:
        """W y of the first layer: the part of a step that needs no state."""
        return self.cells[0].project(embedded)

    def read_out(self, state, embedded, context, *, train: bool):
        """The hidden state that predicts the next word."""
        hidden = self.readout(
            self.drop(state, deterministic=not train), embedded, context
        )
        return self.drop(hidden, deterministic=not train)

    def __call__(
        self,
        embedded: Float[Array, "B T E"],
        states: tuple[Float[Array, "B D"], ...],
        source: Source,
        *,
        train: bool,
    ) -> Float[Array, "B T O"]:
        """Hidden states of a whole target sentence."""
        embedded = self.drop(embedded, deterministic=not train)
        watched = self.is_mutable_collection("intermediates")

        def one(decoder, states, projected):
            states, context, weights = decoder.advance(
                states, projected[:, None], source, train=train
            )
            seen = (states[-1][:, 0], context[:, 0])
            return states, (*seen, weights[:, 0]) if watched else seen

        scan = nn.scan(
            one,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        states = tuple(state[:, None] for state in states)
        _, (top, contexts, *weights) = scan(self, states, self.project(embedded))
        if watched:
            self.sow("intermediates", "attention", weights[0])
        return self.read_out(top, embedded, contexts, train=train)


class Seq2Seq(Predictor):
    """RNNsearch; see the contract in README.md.

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
        width = config.embedding_width
        self.target_embedding = Embedding(self.target_vocab_size, width, INIT)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = Embedding(self.source_vocab_size, width, INIT)
        self.encoder = Encoder(config.layers, config.width, config.dropout)
        self.decoder = Decoder(config)
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = Head(self.target_vocab_size, width, INIT, tied)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from sentence to sentence."""
        return ()

    def _encode(self, source, source_mask, *, train):
        annotations, backward = self.encoder(
            self.source_embedding(source), source_mask, train=train
        )
        keys = self.decoder.additive.project_keys(annotations)
        states = self.decoder.start(backward)
        return Source(annotations, keys, source_mask), states

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T E"], tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        context, states = self._encode(source, source_mask, train=train)
        embedded = self.target_embedding(target_in)
        return self.decoder(embedded, states, context, train=train), carry

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[Source, tuple[Float[Array, "B K D"], ...]]:
        """Encodes a sentence; its translation may have any length."""
        context, states = self._encode(source, source_mask, train=False)
        return context, tuple(state[:, None] for state in states)

    def step(
        self,
        context: Source,
        state: tuple[Float[Array, "B K D"], ...],
        token: Int[Array, "B K"],
    ) -> tuple[tuple[Float[Array, "B K D"], ...], Float[Array, "B K V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        embedded = self.target_embedding(token)
        state, seen, _ = self.decoder.advance(
            state, self.decoder.project(embedded), context, train=False
        )
        hidden = self.decoder.read_out(state[-1], embedded, seen, train=False)
        return state, self.logits(hidden)
