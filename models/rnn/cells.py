"""Recurrent cells, each also a layer over time.

A cell computes W x + b for all gates and all steps in one product (`project`); a
step then needs one product with the recurrent weights U. A state is one array or,
for the LSTM, a pair of them. Parameters of a cell are

    input.kernel [E, G D], input.bias [G D], recurrent [D, G D]

with the G gates side by side in the order of the formulas, which is PyTorch's.
Projected gates are separate arrays: XLA for CPUs does not vectorise an operation
that reads several parts of an array inside a loop.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from models.common.dropout import Dropout
from models.common.dtypes import DType, Scalar
from models.common.layers import Dense, Initializer, zeros

State = PyTree[Float[Array, "..."]]
Gates = tuple[Float[Array, "... D"], ...]
Weights = Float[Array, "D _"]


def orthogonal_per_gate(key, shape, dtype=None):
    """Returns one orthogonal matrix per gate, side by side.

    The matrices are decomposed one by one: on a CPU with few cores a batch of
    decompositions can deadlock (jaxlib 0.10.2).
    """
    orthogonal = nn.initializers.orthogonal()
    keys = jax.random.split(key, shape[1] // shape[0])
    gates = [orthogonal(key, (shape[0], shape[0]), dtype) for key in keys]
    return jnp.concatenate(gates, axis=1)


class Cell(nn.Module):
    """Base class of the cells, which define `step`.

    Attributes:
      width: width of a state (D).
      weight_dropout: dropout rate of U's entries, with one mask for all steps of a
        call (DropConnect, Wan et al. 2013, as Merity et al. 2017).
      kernel_init: initializer of W; None: Glorot uniform.
      recurrent_init: initializer of U.
    """

    width: int
    weight_dropout: Scalar = 0.0
    kernel_init: Initializer | None = None
    recurrent_init: Initializer = orthogonal_per_gate

    gates = 3

    def setup(self):
        size = self.gates * self.width
        self.input = Dense((size,), ("embed", "gates"), kernel_init=self.kernel_init)
        self.recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(self.recurrent_init, ("embed", "gates")),
            (self.width, size),
        )
        self.drop_weights = Dropout(self.weight_dropout)

    @staticmethod
    def state_from_output(output: Float[Array, "... D"]) -> State:
        """Returns the state with a given output and an otherwise empty memory."""
        return output

    @staticmethod
    def output(state: State) -> Float[Array, "... D"]:
        """Returns the part of a state that other layers read."""
        return state

    def project(self, x: Float[Array, "... E"]) -> Gates:
        """Computes W x + b for all gates, the part of a step without the state."""
        return self.split_gates(self.input(x))

    def split_gates(self, x: Float[Array, "... _"]) -> Gates:
        """Splits gates that are side by side in one array."""
        return tuple(jnp.split(x, self.gates, axis=-1))

    def step(self, state: State, projected: Gates, recurrent: Weights) -> State:
        """Returns the next state; `recurrent` is U, perhaps with dropout."""
        raise NotImplementedError

    def __call__(
        self,
        x: Float[Array, "B T E"],
        state: State,
        mask: Bool[Array, "B T"],
        *,
        train: bool,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], State]:
        """Returns all outputs and the last state; masked steps keep the state."""
        recurrent = self.drop_weights(self.recurrent, deterministic=not train)

        def step(state, inputs):
            projected, valid = inputs
            new = self.step(state, projected, recurrent.astype(x.dtype))
            keep_valid = functools.partial(jnp.where, valid[:, None])
            state = jax.tree.map(keep_valid, new, state)
            return state, self.output(state)

        projected = [jnp.moveaxis(gate, 1, 0) for gate in self.project(x)]
        inputs = (tuple(projected), mask.T)
        last, outputs = jax.lax.scan(step, state, inputs, reverse=reverse)
        return jnp.moveaxis(outputs, 0, 1), last


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014), the reset gate after the product.

        r = sigmoid(W_r x + b_r + U_r h),  z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + r * (U_n h + b')),  h' = (1 - z) * n + z * h

    This is the form of cuDNN and PyTorch, where all gates share one product. b' is
    the parameter `candidate_bias` [D].
    """

    def setup(self):
        super().setup()
        self.candidate_bias = self.param(
            "candidate_bias",
            nn.with_logical_partitioning(zeros, ("gates",)),
            (self.width,),
        )

    def step(self, state: State, projected: Gates, recurrent: Weights) -> State:
        reset, update, candidate = projected
        from_state = self.split_gates(state @ recurrent)
        reset = nn.sigmoid(reset + from_state[0])
        update = nn.sigmoid(update + from_state[1])
        bias = self.candidate_bias.astype(state.dtype)
        candidate = jnp.tanh(candidate + reset * (from_state[2] + bias))
        return (1 - update) * candidate + update * state


class GRUResetBefore(Cell):
    """Gated recurrent unit as published, with the reset gate before the product.

        r = sigmoid(W_r x + b_r + U_r h),  z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + U_n (r * h)),  h' = (1 - z) * h + z * n

    This is the form of Bahdanau et al. (2015, appendix A.1.1), where z weights the
    new state; in Cho et al. (2014) it weights the old one. Keras names it
    `reset_after=False`.
    """

    def step(self, state: State, projected: Gates, recurrent: Weights) -> State:
        reset, update, candidate = projected
        gates, from_reset = jnp.split(recurrent, [2 * self.width], axis=1)
        from_state = jnp.split(state @ gates, 2, axis=-1)
        reset = nn.sigmoid(reset + from_state[0])
        update = nn.sigmoid(update + from_state[1])
        candidate = jnp.tanh(candidate + (reset * state) @ from_reset)
        return (1 - update) * state + update * candidate


class LSTM(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        i, f, o = sigmoid(W x + b + U h) each,  g = tanh(W_g x + b_g + U_g h)
        c' = f * c + i * g,  h' = o * tanh(c')

    The state is (h, c); the gates are in the order i, f, g, o.
    """

    gates = 4

    @staticmethod
    def state_from_output(output: Float[Array, "... D"]) -> State:
        return output, jnp.zeros_like(output)

    @staticmethod
    def output(state: State) -> Float[Array, "... D"]:
        return state[0]

    def step(self, state: State, projected: Gates, recurrent: Weights) -> State:
        hidden, memory = state
        pairs = zip(projected, self.split_gates(hidden @ recurrent), strict=True)
        i, f, g, o = (from_input + from_state for from_input, from_state in pairs)
        memory = nn.sigmoid(f) * memory + nn.sigmoid(i) * jnp.tanh(g)
        return nn.sigmoid(o) * jnp.tanh(memory), memory


CELLS = {"gru": GRU, "gru_reset_before": GRUResetBefore, "lstm": LSTM}


def zero_state(
    cell: str, batch_size: int, width: int, dtype: DType = jnp.float32
) -> State:
    """Returns the state of a cell before the first token."""
    return CELLS[cell].state_from_output(jnp.zeros((batch_size, width), dtype))


class Readout(nn.Module):
    """Hidden layer before the output head ("deep output", Pascanu et al. 2014).

        tanh:    t = tanh(W [a; b; ..] + bias)
        maxout:  t_j = max(u_(2j), u_(2j+1)),  u = W [a; b; ..] + bias
                 (Goodfellow et al. 2013, as Bahdanau et al. 2015, appendix A.2.2)

    Attributes:
      kind: "tanh" or "maxout".
      width: width of t.
    """

    kind: str
    width: int
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        pieces = 2 if self.kind == "maxout" else 1
        hidden = Dense(
            (pieces * self.width,),
            ("embed", "mlp"),
            kernel_init=self.kernel_init,
            name="proj",
        )(jnp.concatenate(inputs, axis=-1))
        if self.kind == "tanh":
            return jnp.tanh(hidden)
        return hidden.reshape(*hidden.shape[:-1], self.width, 2).max(axis=-1)
