"""The decoder of RNNsearch: recurrent layers that look at a source every step."""

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
    """What a source sentence fixes: annotations h, their keys, padding."""

    annotations: Float[Array, "B S D2"]
    keys: Float[Array, "B S A"]
    mask: Bool[Array, "B S"]


class DecoderState(NamedTuple):
    """What a word leaves to the next, for N hypotheses.

    Attributes:
      states: each layer's, arrays [B, N, D].
      input_feed: what predicted the last word, [B, N, O]; () without input feeding.
    """

    states: tuple[State, ...]
    input_feed: Float[Array, "B N O"] | tuple


class StepOutputs(NamedTuple):
    """What a word is predicted from, and where the context was looked for."""

    top: Float[Array, "B N D"]
    context: Float[Array, "B N D2"]
    weights: Float[Array, "B N S"]


class Decoder(nn.Module):
    """Recurrent layers of which the first sees the context of its last state.

        c_i = attention(s_{i-1}; h),   s_i = cell(s_{i-1}; y_{i-1}, c_i)
        t_i = readout(s, y_{i-1}, c_i)

    The tanh readout sees the new state s_i, the maxout as published the old
    s_{i-1} (Bahdanau et al. 2015, appendix A.2.2). With input feeding (Luong et
    al. 2015, section 3.3) the cell also sees t_{i-1}, zero at first. There the
    context is that of the new state; here it stays that of the old.

    A conditional decoder (Sennrich et al. 2017, "Nematus", section 2) looks for
    the context when it knows the last word, between two cells of the first layer:

        s'_i = cell(s_{i-1}; y_{i-1}),  c_i = attention(s'_i; h)
        s_i = cell'(s'_i; c_i)

    Attributes:
      cell, score, readout, initialization: names, as in `Config`.
      readout_width: O, of what predicts a word.
      conditional_gru: whether the attention stands between two cells.
      remat: whether the backward pass computes scores again.
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
        into = {"use_bias": False, "kernel_init": init.kernel}
        size = (cell.gates * self.width,)
        if self.conditional_gru:
            self.transition_cell = cell(self.width, kernel_init=init.kernel)
        else:
            self.context_proj = Dense(size, ("embed", "gates"), **into)
        if self.input_feeding:
            self.input_feed_proj = Dense(size, ("embed", "gates"), **into)
        self.initial_state = Dense(
            (self.width,), ("embed", "gates"), kernel_init=init.kernel
        )
        self.readout_layer = Readout(self.readout, self.readout_width, init.kernel)
        self.drop = Dropout(self.dropout)

    def prepare_source(
        self, annotations: Float[Array, "B S D2"], mask: Bool[Array, "B S"]
    ) -> EncodedSource:
        """A source ready for attention.

        A dot product needs keys of the state's size D: the sum of an
        annotation's two directions, which has no parameters.
        """
        states = annotations
        if self.score in ("dot", "scaled_dot"):
            states = sum(jnp.split(annotations, 2, axis=-1))
        return EncodedSource(annotations, self.alignment.project_keys(states), mask)

    def start(self, backward: Float[Array, "B D"]) -> DecoderState:
        """s_0 = tanh(W_s h_1) of the backward encoder, for every layer; K = 1."""
        output = jnp.tanh(self.initial_state(backward))[:, None]
        input_feed = jnp.zeros((len(output), 1, self.readout_width), output.dtype)
        states = tuple(cell.state_from_output(output) for cell in self.cells)
        return DecoderState(states, input_feed if self.input_feeding else ())

    def project(self, embedded: Float[Array, "B T E"]) -> Gates:
        """W y of the first layer: the part of a step that needs no state."""
        return self.cells[0].project(embedded)

    def advance(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        projected: Gates,
        source: EncodedSource,
        *,
        train: bool,
    ) -> tuple[DecoderState, StepOutputs]:
        """One word of each of N hypotheses; `projected` is W y of the first layer."""
        if self.input_feeding:
            projected = self._add(projected, self.input_feed_proj(state.input_feed))
        first, context, weights = self._attend_first_layer(
            state.states[0], projected, source
        )
        new = [first]
        for cell, old in zip(self.cells[1:], state.states[1:], strict=True):
            below = self.drop(cell.output(new[-1]), deterministic=not train)
            new.append(self._cell_step(cell, old, cell.project(below)))
        top = state.states[-1] if self.readout == "maxout" else new[-1]
        seen = StepOutputs(self.cells[-1].output(top), context, weights)
        input_feed = ()
        if self.input_feeding:
            input_feed = self.read_out(seen.top, context, embedded, train=train)
        return DecoderState(tuple(new), input_feed), seen

    def _attend_first_layer(self, state, projected, source):
        """The first layer's next state, the context and where it was looked for."""
        cell = self.cells[0]
        if self.conditional_gru:
            state = self._cell_step(cell, state, projected)
        context, weights = self.alignment(
            cell.output(state), source.keys, source.annotations, source.mask[:, None]
        )
        if self.conditional_gru:
            new = self._cell_step(
                self.transition_cell, state, self.transition_cell.project(context)
            )
        else:
            projected = self._add(projected, self.context_proj(context))
            new = self._cell_step(cell, state, projected)
        return new, context, weights

    @staticmethod
    def _cell_step(cell, state, projected):
        """A cell's next state."""
        recurrent = cell.recurrent.astype(projected[0].dtype)
        return cell.step(state, projected, recurrent)

    def _add(self, projected, more):
        """Gates and what stands side by side."""
        pairs = zip(projected, self.cells[0].split_gates(more), strict=True)
        return tuple(one + other for one, other in pairs)

    def read_out(
        self,
        top: Float[Array, "B T D"],
        context: Float[Array, "B T D2"],
        embedded: Float[Array, "B T E"],
        *,
        train: bool,
    ) -> Float[Array, "B T O"]:
        """The hidden states t that predict the next words."""
        top = self.drop(top, deterministic=not train)
        hidden = self.readout_layer(top, embedded, context)
        return self.drop(hidden, deterministic=not train)

    def step(
        self,
        state: DecoderState,
        embedded: Float[Array, "B N E"],
        source: EncodedSource,
    ) -> tuple[DecoderState, Float[Array, "B N O"]]:
        """One word while translating: the next state and what predicts."""
        projected = self.project(embedded)
        state, seen = self.advance(state, embedded, projected, source, train=False)
        self.sow("intermediates", "attention", seen.weights)
        if self.input_feeding:
            return state, state.input_feed
        return state, self.read_out(seen.top, seen.context, embedded, train=False)

    def __call__(
        self,
        embedded: Float[Array, "B T E"],
        state: DecoderState,
        source: EncodedSource,
        *,
        train: bool,
    ) -> Float[Array, "B T O"]:
        """Hidden states of a whole target sentence."""
        embedded = self.drop(embedded, deterministic=not train)
        watched = self.is_mutable_collection("intermediates")

        def one(decoder, state, word):
            word = jax.tree.map(lambda part: part[:, None], word)
            state, seen = decoder.advance(state, *word, source, train=train)
            found = (
                state.input_feed if decoder.input_feeding else (seen.top, seen.context)
            )
            weights = seen.weights if watched else ()
            return state, jax.tree.map(lambda leaf: leaf[:, 0], (found, weights))

        scan = nn.scan(
            one,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        words = (embedded, self.project(embedded))
        _, (found, weights) = scan(self, state, words)
        if watched:
            self.sow("intermediates", "attention", weights)
        if self.input_feeding:
            return found
        return self.read_out(*found, embedded, train=train)
