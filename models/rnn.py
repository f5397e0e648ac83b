"""Recurrent networks with attention.

As a Seq2Seq: the encoder-decoder of Bahdanau et al. (2015, "Neural Machine
Translation by Jointly Learning to Align and Translate"), which the config
`configs/wmt14.py:rnnsearch50` gives as published. As a LanguageModel: recurrent
layers whose output also attends to its own last states (as Daniluk et al. 2017,
"Frustratingly Short Attention Spans in Neural Language Modeling") or, with
`readout="none"`, the AWD-LSTM of Merity et al. (2017, "Regularizing and
Optimizing LSTM Language Models", `configs/ptb.py:awd_lstm`).

The defaults deviate from Bahdanau et al.: the reset gate acts after the product
(`cell="gru"`), which lets one product serve all gates; the output layer is the
tanh of a sum with the new state, not a maxout with the old; there is dropout.
"""

import dataclasses
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from errors import UserError
from models.heads import Head, Predictor
from models.layers import Embedding, check_sizes
from models.masks import pad_left
from models.recurrent import (
    CELLS,
    INITIALIZATIONS,
    Bidirectional,
    Readout,
    State,
    first_state,
)
from models.rnn_decoder import Decoder, DecoderState, Source
from models.rnn_memory import LookBack, Recent, none_yet
from models.scores import SCORES, SingleHeadAttention, make_score

CHOICES = {
    "cell": tuple(CELLS),
    "score": SCORES,
    "readout": ("tanh", "maxout", "none"),
    "initialization": tuple(INITIALIZATIONS),
}

Penalty = Annotated[float, "0 or more"]


@dataclasses.dataclass(frozen=True)
class Config:
    """The keys of `cfg.model`; `configs/base.py` says what each means.

    Raises ValueError for values that no such model can have.
    """

    name: str
    cell: str
    layers: int
    width: int
    embedding_width: int
    score: str
    attention_width: int
    memory_length: int
    readout: str
    maxout_width: int
    input_feeding: bool
    initialization: str
    tie_embeddings: bool
    dropout: float
    dropout_input: float
    dropout_hidden: float
    dropout_embedding: float
    weight_dropout: float
    variational: bool
    activation_regularization: Penalty
    temporal_activation_regularization: Penalty

    def __post_init__(self):
        check_sizes(self)
        for key, known in CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                raise ValueError(f"model.{key}={value!r}: there are {', '.join(known)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is Penalty and not value >= 0:
                raise ValueError(f"model.{field.name}={value}: it must be 0 or more")
        if self.embedding_width < 1:
            raise ValueError("model.embedding_width=0: it must be 1 or more")
        if self.readout == "none" and self.memory_length:
            raise ValueError(
                f"model.readout='none' has no room for the attention that "
                f"model.memory_length={self.memory_length} asks for: set it to 0, "
                "or readout to 'tanh' or 'maxout'"
            )
        if self.tie_embeddings and self.output_width != self.embedding_width:
            raise ValueError(
                f"model.maxout_width={self.maxout_width} is not model.embedding_width="
                f"{self.embedding_width}, which model.tie_embeddings needs"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each layer of a language model, whose last may itself predict."""
        straight = self.readout == "none" and self.tie_embeddings
        last = self.embedding_width if straight else self.width
        return (self.width,) * (self.layers - 1) + (last,)

    @property
    def output_width(self) -> int:
        """Of what predicts a token."""
        return {
            "tanh": self.embedding_width,
            "maxout": self.maxout_width,
            "none": self.widths[-1],
        }[self.readout]

    def rate(self, key: str) -> float:
        """One of the dropouts; `dropout=0` switches off every one."""
        return getattr(self, key) if self.dropout else 0.0


class Carry(NamedTuple):
    """What the language model hands to the next segment, or token.

    While tokens are generated, leaves are [B, N, ...] for N hypotheses.

    Attributes:
      states: each layer's last state, arrays [B, D].
      recent: the top layer's last N outputs; () for N = 0.
    """

    states: tuple[State, ...]
    recent: Recent | tuple


class LanguageModel(Predictor):
    """Recurrent language model that attends to its last outputs.

        hidden_t = readout(h_t, c_t),   c_t = attention(h_t; h_{t-N} .. h_{t-1})

    or, without a readout, hidden_t = h_t. See the contract in README.md.

    Dropout and penalties are those of Merity et al. (2017, section 4): of whole
    words of the table, of what enters, between layers, of what leaves, and of
    recurrent weights; `variational` draws one mask a row for all steps of a
    segment. The penalties are sown in "losses", a (sum, weight) a row.
    """

    config: Config
    vocab_size: int

    def setup(self):
        config = self.config
        init = INITIALIZATIONS[config.initialization]
        width = config.embedding_width
        self.embedding = Embedding(self.vocab_size, width, init.table)
        cell, left_out = CELLS[config.cell], config.rate("weight_dropout")
        self.layers = [cell(width, left_out, init.kernel) for width in config.widths]
        if config.readout != "none":
            score = make_score(
                config.score,
                width=config.attention_width,
                query_width=config.width,
                kernel_init=init.attention,
                score_init=init.score,
            )
            self.look_back = LookBack(SingleHeadAttention(score))
            self.readout = Readout(config.readout, config.output_width, init.kernel)
        tied = self.embedding if config.tie_embeddings else None
        self.head = Head(self.vocab_size, config.output_width, init.table, tied)
        all_steps = (1,) if config.variational else ()
        self.drop_words = nn.Dropout(config.rate("dropout_embedding"))
        self.drop_input = nn.Dropout(config.rate("dropout_input"), all_steps)
        self.drop_hidden = nn.Dropout(config.rate("dropout_hidden"), all_steps)
        self.drop_output = nn.Dropout(config.dropout, all_steps)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Carry:
        """States of zero and none to attend to; N = `memory_length`."""
        config = self.config
        length = config.memory_length if memory_length is None else memory_length
        states = tuple(first_state(config.cell, batch_size, w) for w in config.widths)
        if config.readout == "none":
            return Carry(states, ())
        return Carry(states, none_yet(batch_size, length, config.width))

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Carry, *, train: bool
    ) -> tuple[Float[Array, "B T E"], Carry]:
        """Hidden states of a segment, each of all that stands before it."""
        return self._read(tokens, jnp.ones(tokens.shape, bool), carry, train=train)

    def _read(self, tokens, mask, carry, *, train):
        """Padding, where mask is False, stands before a row's first token."""
        x = self._embed(tokens, train=train)
        last = []
        for layer, state in zip(self.layers, carry.states, strict=True):
            if last:
                x = self.drop_hidden(x, deterministic=not train)
            x, state = layer(x, state, mask, train=train)
            last.append(state)
        dropped = self.drop_output(x, deterministic=not train)
        if train:
            self._penalise(x, dropped)
        hidden, recent = dropped, ()
        if self.config.readout != "none":
            contexts, recent = self.look_back(x, mask, carry.recent)
            hidden = self.readout(dropped, contexts)
            hidden = self.drop_output(hidden, deterministic=not train)
        return hidden, jax.lax.stop_gradient(Carry(tuple(last), recent))

    def _embed(self, tokens, *, train):
        """Vectors of tokens; in training some words have none anywhere."""
        x = self.embedding(tokens)
        if train and self.config.rate("dropout_embedding"):
            words = self.drop_words(jnp.ones(self.vocab_size), deterministic=False)
            x = x * words[tokens][..., None]
        return self.drop_input(x, deterministic=not train)

    def _penalise(self, outputs, dropped):
        """Sows AR, alpha * mean(dropped^2), and TAR, beta * mean((h_t - h_{t-1})^2)."""
        changes = outputs[:, 1:] - outputs[:, :-1]
        for name, strength, values in (
            ("activation", self.config.activation_regularization, dropped),
            (
                "temporal_activation",
                self.config.temporal_activation_regularization,
                changes,
            ),
        ):
            if strength:
                rows, *sizes = values.shape
                total = strength * jnp.square(values).sum(axis=(1, 2))
                weight = jnp.full(rows, float(sizes[0] * sizes[1]))
                self.sow("losses", name, (total, weight))

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: Carry,
        *,
        max_steps: int = 256,
    ) -> tuple[tuple, Carry]:
        """Reads a prompt; any number of tokens may follow it."""
        _, carry = self._read(*pad_left(prompt, prompt_mask), carry, train=False)
        return (), jax.tree.map(lambda leaf: leaf[:, None], carry)

    def step(
        self, context: tuple, state: Carry, token: Int[Array, "B N"]
    ) -> tuple[Carry, Float[Array, "B N V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        shape = token.shape
        count = shape[0] * shape[1]
        rows = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), state)
        hidden, carry = self(token.reshape(count, 1), rows, train=False)
        state = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), carry)
        return state, self.logits(hidden).reshape(*shape, -1)


class Seq2Seq(Predictor):
    """RNNsearch; see the contract in README.md.

    Attributes:
      shared_vocab: whether source and target have one vocabulary; with
        `tie_embeddings` they then share one table with the output layer.

    Raises UserError for a config without a readout.
    """

    config: Config
    source_vocab_size: int
    target_vocab_size: int
    shared_vocab: bool

    def __post_init__(self):
        if self.config.readout == "none":
            raise UserError(
                "model.readout='none' is for language models; a translation's words "
                "are predicted through 'tanh' or 'maxout'"
            )
        super().__post_init__()

    def setup(self):
        config = self.config
        init = INITIALIZATIONS[config.initialization]
        width = config.embedding_width
        self.target_embedding = Embedding(self.target_vocab_size, width, init.table)
        if config.tie_embeddings and self.shared_vocab:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = Embedding(self.source_vocab_size, width, init.table)
        self.encoder = Bidirectional(
            config.cell, config.layers, config.width, config.dropout, init.kernel
        )
        self.decoder = Decoder(
            cell=config.cell,
            layers=config.layers,
            width=config.width,
            score=config.score,
            attention_width=config.attention_width,
            readout=config.readout,
            readout_width=config.output_width,
            input_feeding=config.input_feeding,
            initialization=config.initialization,
            dropout=config.dropout,
        )
        tied = self.target_embedding if config.tie_embeddings else None
        self.head = Head(self.target_vocab_size, config.output_width, init.table, tied)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> tuple:
        """Empty: nothing is remembered from sentence to sentence."""
        return ()

    def _encode(self, source, source_mask, *, train):
        embedded = self.source_embedding(source)
        annotations, backward = self.encoder(embedded, source_mask, train=train)
        context = self.decoder.look_at(annotations, source_mask)
        return context, self.decoder.start(backward)

    def __call__(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        target_in: Int[Array, "B T"],
        target_mask: Bool[Array, "B T"],
        carry: tuple,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B T O"], tuple]:
        """Hidden states of the target, each of the source and what stands before."""
        context, state = self._encode(source, source_mask, train=train)
        embedded = self.target_embedding(target_in)
        return self.decoder(embedded, state, context, train=train), carry

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[Source, DecoderState]:
        """Encodes a sentence; its translation may have any length."""
        return self._encode(source, source_mask, train=False)

    def step(
        self, context: Source, state: DecoderState, token: Int[Array, "B N"]
    ) -> tuple[DecoderState, Float[Array, "B N V"]]:
        """Feeds a token to each hypothesis and scores the next."""
        embedded = self.target_embedding(token)
        state, hidden = self.decoder.step(state, embedded, context)
        return state, self.logits(hidden)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        """The attention to the source of what was sown."""
        (weights,) = intermediates["decoder"]["attention"]
        return weights
