"""Recurrent language model with attention to its own last outputs.

After Daniluk et al. (2017, "Frustratingly Short Attention Spans in Neural Language
Modeling"). With `readout="none"` it is the AWD-LSTM (Merity et al. 2017, "Regularizing
and Optimizing LSTM Language Models", `configs/ptb.py:awd_lstm`).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models import api
from models.common.dropout import Dropout, WordDropout
from models.common.dtypes import upcast_to_f32
from models.common.layers import Embedding
from models.common.masks import pad_left
from models.common.output_head import OutputHead
from models.rnn.attention import SingleHeadAttention
from models.rnn.cells import CELLS, Readout, State, zero_state
from models.rnn.config import Config


class OutputWindow(NamedTuple):
    """The M outputs before a segment, oldest first.

    Attributes:
      outputs: outputs of the top layer, [B, M, D].
      valid_length: number of slots in use, the last ones, [B].
    """

    outputs: Float[Array, "B M D"]
    valid_length: Int[Array, "B"]


class LocalAttention(nn.Module):
    """Attention over a sliding window (Daniluk et al. 2017, section 3.1).

        c_t = attention(h_t; h_{t-M} .. h_{t-1})

    With `remat` the backward pass recomputes the attention instead of storing M states
    for each output.
    """

    config: Config

    def setup(self):
        self.alignment = SingleHeadAttention(self.config)

    def __call__(
        self,
        outputs: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        window: OutputWindow | tuple,
    ) -> tuple[Float[Array, "B T D"], OutputWindow | tuple]:
        """Returns the context of each output and the next window; 0 and () without one.

        Args:
          mask: False at padding, which precedes each row's first output.
        """
        if not window:
            return jnp.zeros_like(outputs), ()
        size, length = window.outputs.shape[1], outputs.shape[1]
        padding = length - mask.sum(axis=1, dtype=jnp.int32)
        roll = jax.vmap(lambda row, shift: jnp.roll(row, shift, axis=0))
        old = roll(jnp.pad(window.outputs, ((0, 0), (0, length), (0, 0))), padding)
        new = jnp.pad(outputs, ((0, 0), (size, 0), (0, 0)))
        slots = jnp.arange(size + length) - padding[:, None]
        states = jnp.where((slots < size)[..., None], old, new)
        valid = slots >= size - window.valid_length[:, None]
        valid_length = jnp.minimum(window.valid_length + length - padding, size)
        attend = LocalAttention._attend
        if self.config.remat:
            attend = nn.remat(attend)
        # Called outside `attend`, because a lifted module cannot create parameters.
        keys = self.alignment.project_keys(states)
        contexts = attend(self, outputs, keys, states, valid)
        return contexts, OutputWindow(states[:, length:], valid_length)

    def _attend(self, outputs, keys, states, valid):
        """Attends from each output to the M states before it."""
        batch_size, length, width = outputs.shape
        size = states.shape[1] - length
        rows = batch_size * length
        slots = jnp.arange(length)[:, None] + jnp.arange(size)  # [T, M]
        contexts, weights = self.alignment(
            outputs.reshape(rows, 1, width),
            keys[:, slots].reshape(rows, size, -1),
            states[:, slots].reshape(rows, size, width),
            valid[:, slots].reshape(rows, 1, size),
        )
        weights = weights.reshape(batch_size, length, size)
        self.sow("intermediates", "attention", weights)
        return contexts.reshape(batch_size, length, width)


class Carry(NamedTuple):
    """State between segments, or between generated tokens with leaves [B, N, ...].

    Attributes:
      states: last state of each layer, arrays [B, D].
      window: last M outputs of the top layer; () without attention.
    """

    states: tuple[State, ...]
    window: OutputWindow | tuple


class LanguageModel(api.LanguageModel):
    """Recurrent language model; the context c_t is 0 without a window.

        hidden_t = readout(h_t, c_t),   c_t = attention(h_t; h_{t-M} .. h_{t-1})

    or, with `readout="none"`, hidden_t = h_t.

    Dropout and penalties are those of Merity et al. (2017, section 4): dropout of
    whole words of the embedding, of the layers' inputs and outputs, and of recurrent
    weights; `variational_dropout` uses one mask for all steps of a segment. The
    activation penalties are sown in "losses", a (sum, weight) for each row.
    """

    config: Config

    def setup(self):
        config, init = self.config, self.config.init
        width = config.embedding_width
        self.embedding = Embedding(self.vocab_size, width, init.table)
        cell, weight_dropout = CELLS[config.cell], config.rate("weight_dropout")
        self.layers = [
            cell(width, weight_dropout, init.kernel, init.recurrent)
            for width in config.widths
        ]
        if config.readout != "none":
            self.local_attention = LocalAttention(config)
            self.readout = Readout(config.readout, config.output_width, init.kernel)
        tied = self.embedding if config.tie_embeddings else None
        self.head = OutputHead(self.vocab_size, config.output_width, init.table, tied)
        all_steps = (1,) if config.variational_dropout else ()
        rate = config.rate("dropout_embedding")
        self.drop_words = WordDropout(self.vocab_size, rate)
        self.drop_input = Dropout(config.rate("dropout_input"), all_steps)
        self.drop_hidden = Dropout(config.rate("dropout_hidden"), all_steps)
        self.drop_output = Dropout(config.dropout, all_steps)

    def initial_carry(
        self, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> Carry:
        """Returns zero states and an empty window of `memory_length` outputs (M)."""
        config, dtype = self.config, self.config.compute_dtype
        length = config.attention_window if memory_length is None else memory_length
        states = tuple(
            zero_state(config.cell, batch_size, width, dtype) for width in config.widths
        )
        if config.readout == "none" or not length:
            return Carry(states, ())
        outputs = jnp.zeros((batch_size, length, config.width), dtype)
        valid_length = jnp.zeros(batch_size, jnp.int32)
        return Carry(states, OutputWindow(outputs, valid_length))

    def __call__(
        self, tokens: Int[Array, "B T"], carry: Carry, *, train: bool
    ) -> tuple[Float[Array, "B T E"], Carry]:
        return self._read(tokens, jnp.ones(tokens.shape, bool), carry, train=train)

    def _read(self, tokens, mask, carry, *, train):
        """Reads a segment; padding, where mask is False, precedes the tokens."""
        x = self._embed(tokens, train=train)
        states = []
        for layer, state in zip(self.layers, carry.states, strict=True):
            if states:
                x = self.drop_hidden(x, deterministic=not train)
            x, state = layer(x, state, mask, train=train)
            states.append(state)
        dropped = self.drop_output(x, deterministic=not train)
        if train:
            self._sow_activation_penalties(x, dropped)
        hidden, window = dropped, ()
        if self.config.readout != "none":
            contexts, window = self.local_attention(x, mask, carry.window)
            hidden = self.readout(dropped, contexts)
            hidden = self.drop_output(hidden, deterministic=not train)
        return hidden, jax.lax.stop_gradient(Carry(tuple(states), window))

    def _embed(self, tokens, *, train):
        """Embeds tokens, with dropout."""
        x = self.embedding(tokens, self.config.compute_dtype)
        x = self.drop_words(x, tokens, train=train)
        return self.drop_input(x, deterministic=not train)

    def _sow_activation_penalties(self, outputs, dropped):
        """Sows AR, alpha mean(dropped^2), and TAR, beta mean((h_t - h_{t-1})^2)."""
        config = self.config
        outputs, dropped = upcast_to_f32(outputs), upcast_to_f32(dropped)
        changes = outputs[:, 1:] - outputs[:, :-1]
        alpha = config.activation_regularization
        beta = config.temporal_activation_regularization
        for name, strength, values in (
            ("activation", alpha, dropped),
            ("temporal_activation", beta, changes),
        ):
            if strength:
                batch_size, *sizes = values.shape
                total = strength * jnp.square(values).sum(axis=(1, 2))
                weight = jnp.full(batch_size, float(sizes[0] * sizes[1]))
                self.sow("losses", name, (total, weight))

    def start(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"],
        carry: Carry,
        *,
        max_steps: int = 256,
    ) -> tuple[tuple, Carry]:
        _, carry = self._read(*pad_left(prompt, prompt_mask), carry, train=False)
        return (), jax.tree.map(lambda leaf: leaf[:, None], carry)

    def step(
        self, context: tuple, state: Carry, token: Int[Array, "B N"]
    ) -> tuple[Carry, Float[Array, "B N V"]]:
        shape = token.shape
        count = shape[0] * shape[1]
        rows = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), state)
        hidden, carry = self(token.reshape(count, 1), rows, train=False)
        state = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), carry)
        return state, self.logits(hidden).reshape(*shape, -1)
