"""A recurrent language model: layers that may look back at their own outputs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dropout import Dropout, is_zero_rate
from models.common.dtypes import upcast_to_f32
from models.common.layers import Embedding
from models.common.masks import pad_left
from models.common.output_head import OutputHead, SequenceModel
from models.rnn.attention import SingleHeadAttention, make_score
from models.rnn.cells import CELLS, INITIALIZATIONS, Readout, State, zero_state
from models.rnn.config import RNNConfig
from models.rnn.local_attention import LocalAttention, OutputWindow, empty_window


class Carry(NamedTuple):
    """What the language model hands to the next segment, or token.

    While tokens are generated, leaves are [B, N, ...] for N hypotheses.

    Attributes:
      states: each layer's last state, arrays [B, D].
      window: the top layer's last N outputs; () for N = 0.
    """

    states: tuple[State, ...]
    window: OutputWindow | tuple


class LanguageModel(SequenceModel):
    """Recurrent language model that attends to its last outputs.

        hidden_t = readout(h_t, c_t),   c_t = attention(h_t; h_{t-N} .. h_{t-1})

    or, without a readout, hidden_t = h_t. See the contract in README.md.

    Dropout and penalties are those of Merity et al. (2017, section 4): of whole
    words of the table, of what enters, between layers, of what leaves, and of
    recurrent weights; `variational_dropout` draws one mask a row for all steps of a
    segment. The penalties are sown in "losses", a (sum, weight) a row.
    """

    config: RNNConfig
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
            self.local_attention = LocalAttention(
                SingleHeadAttention(score), config.remat
            )
            self.readout = Readout(config.readout, config.output_width, init.kernel)
        tied = self.embedding if config.tie_embeddings else None
        self.head = OutputHead(self.vocab_size, config.output_width, init.table, tied)
        all_steps = (1,) if config.variational_dropout else ()
        self.drop_words = Dropout(config.rate("dropout_embedding"))
        self.drop_input = Dropout(config.rate("dropout_input"), all_steps)
        self.drop_hidden = Dropout(config.rate("dropout_hidden"), all_steps)
        self.drop_output = Dropout(config.dropout, all_steps)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Carry:
        """States of zero and none to attend to; N = the window by default."""
        config = self.config
        length = config.attention_window if memory_length is None else memory_length
        dtype = config.compute_dtype
        states = tuple(
            zero_state(config.cell, batch_size, width, dtype) for width in config.widths
        )
        if config.readout == "none":
            return Carry(states, ())
        return Carry(states, empty_window(batch_size, length, config.width, dtype))

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
            self._sow_activation_penalties(x, dropped)
        hidden, window = dropped, ()
        if self.config.readout != "none":
            contexts, window = self.local_attention(x, mask, carry.window)
            hidden = self.readout(dropped, contexts)
            hidden = self.drop_output(hidden, deterministic=not train)
        return hidden, jax.lax.stop_gradient(Carry(tuple(last), window))

    def _embed(self, tokens, *, train):
        """Vectors of tokens; in training some words have none anywhere."""
        x = self.embedding(tokens, self.config.compute_dtype)
        if train and not is_zero_rate(self.config.rate("dropout_embedding")):
            words = self.drop_words(jnp.ones(self.vocab_size), deterministic=False)
            x = x * words[tokens][..., None].astype(x.dtype)
        return self.drop_input(x, deterministic=not train)

    def _sow_activation_penalties(self, outputs, dropped):
        """Sows AR, alpha * mean(dropped^2), and TAR, beta * mean((h_t - h_{t-1})^2)."""
        outputs, dropped = upcast_to_f32(outputs), upcast_to_f32(dropped)
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
