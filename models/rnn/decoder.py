"""Recurrent decoder with attention to a source sentence at every step."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.common.dropout import Dropout
from models.common.dtypes import Scalar
from models.common.layers import Dense
from models.rnn.attention import SingleHeadAttention, make_score
from models.rnn.cells import CELLS, INITIALIZATIONS, Gates, Readout, State


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


class StepOutputs(NamedTuple):
    """Inputs of the readout, and the attention weights."""

    top: Float[Array, "B N D"]
    context: Float[Array, "B N D2"]
    weights: Float[Array, "B N S"]


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

    Attributes:
      cell, score, readout, initialization: names, as in `Config`.
      readout_width: width of t (O).
      remat: whether the backward pass recomputes the attention scores.
    """

    cell: str
    layers: int
    width: int
    score: str
    attention_width: int
    readout: str
    readout_width: int
    input_feeding: bool
    conditional_gru: bool
    initialization: str
    dropout: Scalar
    remat: bool = False

    def setup(self):
        init = INITIALIZATIONS[self.initialization]
        cell = CELLS[self.cell]
        self.cells = [
            cell(self.width, kernel_init=init.kernel) for _ in range(self.layers)
        ]
        score = make_score(
            self.score,
            width=self.attention_width,
            query_width=self.width,
            kernel_init=init.attention,
            score_init=init.score,
        )
        self.alignment = SingleHeadAttention(score, self.remat)
        gates, axes = (cell.gates * self.width,), ("embed", "gates")
        options = {"use_bias": False, "kernel_init": init.kernel}
        if self.conditional_gru:
            self.transition_cell = cell(self.width, kernel_init=init.kernel)
        else:
            self.context_proj = Dense(gates, axes, **options)
        if self.input_feeding:
            self.input_feed_proj = Dense(gates, axes, **options)
        self.initial_state = Dense((self.width,), axes, kernel_init=init.kernel)
        self.readout_layer = Readout(self.readout, self.readout_width, init.kernel)
        self.drop = Dropout(self.dropout)

    def prepare_source(
        self, annotations: Float[Array, "B S D2"], mask: Bool[Array, "B S"]
    ) -> EncodedSource:
        """Projects the keys of a source sentence.

        A dot product needs keys of the state's width D: the sum of an annotation's
        two directions, which has no parameters.
        """
        states = annotations
        if self.score in ("dot", "scaled_dot"):
            states = sum(jnp.split(annotations, 2, axis=-1))
        return EncodedSource(annotations, self.alignment.project_keys(states), mask)

    def start(self, backward: Float[Array, "B D"]) -> DecoderState:
        """Returns s_0 = tanh(W_s h_1) in every layer, for one beam.

        Args:
          backward: last output of the backward encoder (h_1).
        """
        output = jnp.tanh(self.initial_state(backward))[:, None]
        states = tuple(cell.state_from_output(output) for cell in self.cells)
        if not self.input_feeding:
            return DecoderState(states, ())
        shape = (len(output), 1, self.readout_width)
        return DecoderState(states, jnp.zeros(shape, output.dtype))

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
            state, outputs = decoder.step(state, *inputs, source, train=train)
            hidden = (outputs.top, outputs.context)
            if decoder.input_feeding:
                hidden = state.input_feed
            weights = outputs.weights if watched else ()
            return state, jax.tree.map(lambda leaf: leaf[:, 0], (hidden, weights))

        scan = nn.scan(
            scan_step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        _, (hidden, weights) = scan(self, state, (embedded, self.project(embedded)))
        if watched:
            self.sow("intermediates", "attention", weights)
        if self.input_feeding:
            return hidden
        return self.read_out(*hidden, embedded, train=train)

    def decode_step(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        source: EncodedSource,
    ) -> tuple[DecoderState, Float[Array, "B N O"]]:
        """Feeds a token to each beam; returns the next state and t."""
        projected = self.project(embedded)
        state, outputs = self.step(state, embedded, projected, source, train=False)
        self.sow("intermediates", "attention", outputs.weights)
        if self.input_feeding:
            return state, state.input_feed
        hidden = self.read_out(outputs.top, outputs.context, embedded, train=False)
        return state, hidden

    def project(self, embedded: Float[Array, "B T E"]) -> Gates:
        """Computes W y of the first layer, the part of a step without the state."""
        return self.cells[0].project(embedded)

    def step(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        projected: Gates,
        source: EncodedSource,
        *,
        train: bool,
    ) -> tuple[DecoderState, StepOutputs]:
        """Computes one step; `projected` is W y of the first layer."""
        if self.input_feeding:
            projected = self._add(projected, self.input_feed_proj(state.input_feed))
        first, context, weights = self._attend_first_layer(
            state.states[0], projected, source
        )
        states = [first]
        for cell, old in zip(self.cells[1:], state.states[1:], strict=True):
            below = self.drop(cell.output(states[-1]), deterministic=not train)
            states.append(self._cell_step(cell, old, cell.project(below)))
        top = state.states[-1] if self.readout == "maxout" else states[-1]
        outputs = StepOutputs(self.cells[-1].output(top), context, weights)
        input_feed = ()
        if self.input_feeding:
            input_feed = self.read_out(outputs.top, context, embedded, train=train)
        return DecoderState(tuple(states), input_feed), outputs

    def _attend_first_layer(self, state, projected, source):
        """Returns the first layer's next state, the context and the weights."""
        cell = self.cells[0]
        if self.conditional_gru:
            state = self._cell_step(cell, state, projected)
        context, weights = self.alignment(
            cell.output(state), source.keys, source.annotations, source.mask[:, None]
        )
        if self.conditional_gru:
            cell = self.transition_cell
            projected = cell.project(context)
        else:
            projected = self._add(projected, self.context_proj(context))
        return self._cell_step(cell, state, projected), context, weights

    @staticmethod
    def _cell_step(cell, state, projected):
        recurrent = cell.recurrent.astype(projected[0].dtype)
        return cell.step(state, projected, recurrent)

    def _add(self, projected, gates):
        """Adds gates that are side by side in one array."""
        pairs = zip(projected, self.cells[0].split_gates(gates), strict=True)
        return tuple(left + right for left, right in pairs)

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
