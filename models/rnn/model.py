"""Recurrent encoder-decoder with attention: RNNsearch of Bahdanau et al. (2015,
"Neural Machine Translation by Jointly Learning to Align and Translate").

The config `configs/wmt14.py:rnnsearch50` is the published one. The defaults deviate:
the reset gate acts after the product (`cell="gru"`), so that one product serves all
gates; the readout is the tanh of a sum with the new state, not a maxout with the old;
there is dropout.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models import api
from models.common.dropout import Dropout
from models.common.layers import Dense, Embedding
from models.common.output_head import OutputHead
from models.rnn.attention import SingleHeadAttention
from models.rnn.cells import CELLS, Gates, Readout, State, zero_state
from models.rnn.config import Config
from utils.errors import UserError


class Bidirectional(nn.Module):
    """Bidirectional recurrent layers (Schuster and Paliwal 1997)."""

    config: Config

    def setup(self):
        config, cell, init = self.config, CELLS[self.config.cell], self.config.init
        layer = functools.partial(
            cell,
            config.width,
            config.rate("weight_dropout"),
            kernel_init=init.kernel,
            recurrent_init=init.recurrent,
        )
        self.forward = [layer() for _ in range(config.layers)]
        self.backward = [layer() for _ in range(config.layers)]
        self.drop = Dropout(config.dropout)

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B S"], *, train: bool
    ) -> tuple[Float[Array, "B S D2"], Float[Array, "B D"]]:
        """Returns the annotations and the last output of the backward direction.

        The annotations are [forward; backward] of the last layer, 0 at padding.
        """
        start = zero_state(self.config.cell, x.shape[0], self.config.width, x.dtype)
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = self.drop(x, deterministic=not train)
            left_to_right, _ = forward(x, start, mask, train=train)
            right_to_left, last = backward(x, start, mask, train=train, reverse=True)
            x = jnp.concatenate([left_to_right, right_to_left], axis=-1)
        return jnp.where(mask[..., None], x, 0), backward.output(last)


class EncodedSource(NamedTuple):
    """Annotations h of a source sentence, their projected keys and the mask."""

    annotations: Float[Array, "B S D2"]
    keys: Float[Array, "B S A"]
    mask: Bool[Array, "B S"]


class DecoderState(NamedTuple):
    """State between two steps, for N beams.

    Attributes:
      states: states of each layer, arrays [B, N, D].
      input_feed: hidden state t of the last step, [B, N, O]; () without input feeding.
    """

    states: tuple[State, ...]
    input_feed: Float[Array, "B N O"] | tuple


class Decoder(nn.Module):
    """Decoder of RNNsearch (Bahdanau et al. 2015, appendix A.2.2).

        c_i = attention(s_{i-1}; h),   s_i = cell(s_{i-1}; y_{i-1}, c_i)
        t_i = readout(s, y_{i-1}, c_i)

    The first layer has the attention. The tanh readout reads the new state s_i, the
    maxout readout, as published, the old s_{i-1}.

    With `input_feeding` (Luong et al. 2015, section 3.3) the cell also reads
    t_{i-1}, zero at first. There the context is that of the new state; here it
    stays that of the old.

    With `conditional_gru` (cGRU, Sennrich et al. 2017, "Nematus", section 2) the
    attention is between two cells, so its query includes the previous target word:

        s'_i = cell(s_{i-1}; y_{i-1}),  c_i = attention(s'_i; h)
        s_i = cell'(s'_i; c_i)
    """

    config: Config

    def setup(self):
        config, cell = self.config, CELLS[self.config.cell]
        options = {"kernel_init": config.init.kernel}
        cell_options = {**options, "recurrent_init": config.init.recurrent}
        self.cells = [cell(config.width, **cell_options) for _ in range(config.layers)]
        self.alignment = SingleHeadAttention(config, config.remat)
        gates, axes = (cell.gates * config.width,), ("embed", "gates")
        if config.conditional_gru:
            self.transition_cell = cell(config.width, **cell_options)
        else:
            self.context_proj = Dense(gates, axes, use_bias=False, **options)
        if config.input_feeding:
            self.input_feed_proj = Dense(gates, axes, use_bias=False, **options)
        self.initial_state = Dense((config.width,), axes, **options)
        self.readout_layer = Readout(config.readout, config.output_width, **options)
        self.drop = Dropout(config.dropout)

    def start(
        self,
        annotations: Float[Array, "B S D2"],
        backward: Float[Array, "B D"],
        mask: Bool[Array, "B S"],
    ) -> tuple[EncodedSource, DecoderState]:
        """Projects the keys of a source; s_0 = tanh(W_s h_1) in every layer.

        A dot product needs keys of the state's width D: the sum of an annotation's
        two directions, which has no parameters.

        Args:
          backward: last output of the backward encoder (h_1).

        Returns the source, and the state of one beam.
        """
        states, input_feed = annotations, ()
        if self.config.score in ("dot", "scaled_dot"):
            states = sum(jnp.split(annotations, 2, axis=-1))
        keys = self.alignment.project_keys(states)
        output = jnp.tanh(self.initial_state(backward))[:, None]
        states = tuple(cell.state_from_output(output) for cell in self.cells)
        if self.config.input_feeding:
            shape = (output.shape[0], 1, self.config.output_width)
            input_feed = jnp.zeros(shape, output.dtype)
        return EncodedSource(annotations, keys, mask), DecoderState(states, input_feed)

    def __call__(
        self,
        embedded: Float[Array, "B T E"],
        state: DecoderState,
        source: EncodedSource,
        *,
        train: bool,
    ) -> Float[Array, "B T O"]:
        """Computes the hidden states t of a whole target sentence."""
        embedded = self.drop(embedded, deterministic=not train)
        watched = self.is_mutable_collection("intermediates")

        def scan_step(decoder, state, inputs):
            inputs = jax.tree.map(lambda part: part[:, None], inputs)
            state, hidden, weights = decoder.step(state, *inputs, source, train=train)
            outputs = (hidden, weights if watched else ())
            return state, jax.tree.map(lambda leaf: leaf[:, 0], outputs)

        scan = nn.scan(
            scan_step,
            variable_axes={"intermediates": 0},
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        inputs = (embedded, self.cells[0].project(embedded))
        _, (hidden, weights) = scan(self, state, inputs)
        if watched:
            self.sow("intermediates", "attention", weights)
        if self.config.input_feeding:
            return hidden
        return self.read_out(*hidden, embedded, train=train)

    def decode_step(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        source: EncodedSource,
    ) -> tuple[DecoderState, Float[Array, "B N O"]]:
        """Feeds a token to each beam; returns the next state and t."""
        inputs = (embedded, self.cells[0].project(embedded))
        state, hidden, weights = self.step(state, *inputs, source, train=False)
        self.sow("intermediates", "attention", weights)
        if not self.config.input_feeding:
            hidden = self.read_out(*hidden, embedded, train=False)
        return state, hidden

    def step(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        projected: Gates,
        source: EncodedSource,
        *,
        train: bool,
    ) -> tuple[DecoderState, Float[Array, "B N O"] | tuple, Float[Array, "B N S"]]:
        """Computes one decoding step.

        Args:
          projected: W y of the first layer, the part of a step without the state.

        Returns the next state, t with input feeding or else the inputs s and c of
        the readout, and the attention weights.
        """
        config, cell, first = self.config, self.cells[0], state.states[0]
        if config.input_feeding:
            projected = self._add(projected, self.input_feed_proj(state.input_feed))
        if config.conditional_gru:
            first = self._cell_step(cell, first, projected)
        query, mask = cell.output(first), source.mask[:, None]
        context, weights = self.alignment(query, source.keys, source.annotations, mask)
        if config.conditional_gru:
            cell = self.transition_cell
            projected = cell.project(context)
        else:
            projected = self._add(projected, self.context_proj(context))
        states = [self._cell_step(cell, first, projected)]
        for cell, old in zip(self.cells[1:], state.states[1:], strict=True):
            below = self.drop(cell.output(states[-1]), deterministic=not train)
            states.append(self._cell_step(cell, old, cell.project(below)))
        top = state.states[-1] if config.readout == "maxout" else states[-1]
        top = self.cells[-1].output(top)
        if not config.input_feeding:
            return DecoderState(tuple(states), ()), (top, context), weights
        hidden = self.read_out(top, context, embedded, train=train)
        return DecoderState(tuple(states), hidden), hidden, weights

    @staticmethod
    def _cell_step(cell, state, projected):
        return cell.step(state, projected, cell.recurrent.astype(projected[0].dtype))

    def _add(self, projected, gates):
        """Adds gates that are side by side in one array."""
        return tuple(map(jnp.add, projected, self.cells[0].split_gates(gates)))

    def read_out(
        self,
        top: Float[Array, "B T D"],
        context: Float[Array, "B T D2"],
        embedded: Float[Array, "B T E"],
        *,
        train: bool,
    ) -> Float[Array, "B T O"]:
        """Computes the hidden states t that predict the next tokens."""
        top = self.drop(top, deterministic=not train)
        hidden = self.readout_layer(top, embedded, context)
        return self.drop(hidden, deterministic=not train)


class Seq2Seq(api.Seq2Seq):
    """RNNsearch (Bahdanau et al. 2015).

    Raises UserError for a config without a readout.
    """

    config: Config

    def __post_init__(self):
        if self.config.readout == "none":
            raise UserError(
                "model.readout='none' is for language models; choose 'tanh' or "
                "'maxout' for translation"
            )
        super().__post_init__()

    def setup(self):
        config, table = self.config, self.config.init.table
        tied = self.create_embeddings(
            lambda size: Embedding(size, config.embedding_width, table)
        )
        self.encoder, self.decoder = Bidirectional(config), Decoder(config)
        size = self.target_vocab_size
        self.head = OutputHead(size, config.output_width, table, tied)

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
        encoded, state = self._encode(source, source_mask, train=train)
        embedded = self.target_embedding(target_in, self.config.compute_dtype)
        return self.decoder(embedded, state, encoded, train=train), carry

    def _encode(self, source, source_mask, *, train):
        embedded = self.source_embedding(source, self.config.compute_dtype)
        encoded = self.encoder(embedded, source_mask, train=train)
        return self.decoder.start(*encoded, source_mask)

    def start(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"],
        carry: tuple,
        *,
        max_steps: int = 256,
    ) -> tuple[EncodedSource, DecoderState]:
        return self._encode(source, source_mask, train=False)

    def step(
        self, context: EncodedSource, state: DecoderState, token: Int[Array, "B N"]
    ) -> tuple[DecoderState, Float[Array, "B N V"]]:
        embedded = self.target_embedding(token, self.config.compute_dtype)
        state, hidden = self.decoder.decode_step(state, embedded, context)
        return state, self.logits(hidden)

    def alignment(self, intermediates: dict) -> Float[Array, "B T S"]:
        (weights,) = intermediates["decoder"]["attention"]
        return weights
