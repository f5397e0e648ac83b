"""Recurrent cells, each also a layer over time.

A cell computes W x + b for all gates and all steps at once (`project`); a step
then needs one product with the recurrent weights U. A state is one array or,
for the LSTM, a pair of them. Parameters of a cell are

    input.kernel [E, G D], input.bias [G D], recurrent [D, G D]

with the G gates side by side in the order of the formulas, which is PyTorch's. What is
projected has a gate an array: XLA for CPUs takes a number at a time where one operation
reads several parts of an array that a loop hands in.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from models.common.dropout import Dropout
from models.common.dtypes import DType, Scalar
from models.common.layers import Dense, Initializer, normal, zeros

State = PyTree[Float[Array, "..."]]
Gates = tuple[Float[Array, "... D"], ...]


@dataclasses.dataclass(frozen=True)
class Initialization:
    """How parameters begin; recurrent weights are orthogonal, biases 0 anyway.

    Attributes:
      table: of embeddings.
      kernel: of linear maps; Glorot uniform where None.
      attention: of what maps queries and keys; the same.
      score: of the additive score's v; the same.
    """

    table: Initializer
    kernel: Initializer | None = None
    attention: Initializer | None = None
    score: Initializer | None = None


INITIALIZATIONS = {
    "default": Initialization(normal(0.1)),  # large: gates leave 1/2 early
    # Bahdanau et al. (2015), appendix B.1
    "published": Initialization(normal(0.01), normal(0.01), normal(0.001), zeros),
}


def orthogonal_per_gate(key, shape, dtype=None):
    """One orthogonal matrix a gate, side by side.

    One decomposition at a time: on a CPU of few cores XLA can wait for ever for
    several in a batch, which block the threads that they wait for (jaxlib 0.10.2).
    """
    one = nn.initializers.orthogonal()
    keys = jax.random.split(key, shape[1] // shape[0])
    gates = [one(key, (shape[0], shape[0]), dtype) for key in keys]
    return jnp.concatenate(gates, axis=1)


class Cell(nn.Module):
    """What all cells share; a kind of cell adds `step`.

    Attributes:
      width: D of a state.
      weight_dropout: share of U's entries left out, the same ones at all steps
        of a call (DropConnect, Wan et al. 2013, as Merity et al. 2017).
      kernel_init: of W; Glorot uniform where None.
    """

    width: int
    weight_dropout: Scalar = 0.0
    kernel_init: Initializer | None = None

    gates = 3

    def setup(self):
        size = self.gates * self.width
        self.input = Dense((size,), ("embed", "gates"), kernel_init=self.kernel_init)
        self.recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(orthogonal_per_gate, ("embed", "gates")),
            (self.width, size),
        )
        self.drop_weights = Dropout(self.weight_dropout)

    @staticmethod
    def state_from_output(output: Float[Array, "... D"]) -> State:
        """The state whose output this is, with nothing else remembered."""
        return output

    @staticmethod
    def output(state: State) -> Float[Array, "... D"]:
        """What of a state others see."""
        return state

    def project(self, x: Float[Array, "... E"]) -> Gates:
        """W x + b for all gates: what of a step does not need the state."""
        return self.split_gates(self.input(x))

    def split_gates(self, x: Float[Array, "... _"]) -> Gates:
        """The gates that stand side by side."""
        return tuple(jnp.split(x, self.gates, axis=-1))

    def step(
        self,
        state: State,
        projected: Gates,
        recurrent: Float[Array, "D _"],
    ) -> State:
        """The next state; `recurrent` is U, some of it perhaps left out."""
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
        """All outputs and the last state. A masked step leaves the state as it is."""
        recurrent = self.drop_weights(self.recurrent, deterministic=not train)

        def one(state, inputs):
            projected, keep = inputs
            new = self.step(state, projected, recurrent.astype(x.dtype))
            state = jax.tree.map(
                lambda new, old: jnp.where(keep[:, None], new, old), new, state
            )
            return state, self.output(state)

        projected = [jnp.moveaxis(gate, 1, 0) for gate in self.project(x)]
        inputs = (tuple(projected), mask.T)
        last, outputs = jax.lax.scan(one, state, inputs, reverse=reverse)
        return jnp.moveaxis(outputs, 0, 1), last


class GRU(Cell):
    """Gated recurrent units (Cho et al. 2014), the reset gate after the product.

        r = sigmoid(W_r x + b_r + U_r h),  z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + r * (U_n h + b')),  h' = (1 - z) * n + z * h

    This is the form of cuDNN and PyTorch, where one product serves all gates.
    b' is the parameter `candidate_bias` [D].
    """

    def setup(self):
        super().setup()
        self.candidate_bias = self.param(
            "candidate_bias",
            nn.with_logical_partitioning(zeros, ("gates",)),
            (self.width,),
        )

    def step(
        self,
        state: State,
        projected: Gates,
        recurrent: Float[Array, "D _"],
    ) -> State:
        """The next state."""
        reset, update, candidate = projected
        from_state = self.split_gates(state @ recurrent)
        reset = nn.sigmoid(reset + from_state[0])
        update = nn.sigmoid(update + from_state[1])
        bias = self.candidate_bias.astype(state.dtype)
        candidate = jnp.tanh(candidate + reset * (from_state[2] + bias))
        return (1 - update) * candidate + update * state


class GRUResetBefore(Cell):
    """Gated recurrent units as published: the reset gate before the product.

        r = sigmoid(W_r x + b_r + U_r h),  z = sigmoid(W_z x + b_z + U_z h)
        n = tanh(W_n x + b_n + U_n (r * h)),  h' = (1 - z) * h + z * n

    The form of Bahdanau et al. (2015, appendix A.1.1), where z is the share of
    the new; in Cho et al. (2014) it is the share of the old.
    """

    def step(
        self,
        state: State,
        projected: Gates,
        recurrent: Float[Array, "D _"],
    ) -> State:
        """The next state."""
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

    The state is (h, c); the gates lie in the order i f g o.
    """

    gates = 4

    @staticmethod
    def state_from_output(output: Float[Array, "... D"]) -> State:
        """An empty c beside the output."""
        return output, jnp.zeros_like(output)

    @staticmethod
    def output(state: State) -> Float[Array, "... D"]:
        """h of (h, c)."""
        return state[0]

    def step(
        self,
        state: State,
        projected: Gates,
        recurrent: Float[Array, "D _"],
    ) -> State:
        """The next (h, c)."""
        hidden, memory = state
        pairs = zip(projected, self.split_gates(hidden @ recurrent), strict=True)
        gates = [given + from_state for given, from_state in pairs]
        enter, keep, leave = (nn.sigmoid(gates[gate]) for gate in (0, 1, 3))
        memory = keep * memory + enter * jnp.tanh(gates[2])
        return leave * jnp.tanh(memory), memory


CELLS = {"gru": GRU, "gru_reset_before": GRUResetBefore, "lstm": LSTM}


def zero_state(cell: str, rows: int, width: int, dtype: DType = jnp.float32) -> State:
    """Zeros: the state of a kind of cell before the first word."""
    return CELLS[cell].state_from_output(jnp.zeros((rows, width), dtype))


class Bidirectional(nn.Module):
    """Layers that read a sentence both ways (Schuster and Paliwal 1997).

    Attributes:
      cell: one of CELLS.
      width: D of a direction, so that what comes out has 2D.
    """

    cell: str
    layers: int
    width: int
    dropout: Scalar
    kernel_init: Initializer | None = None

    def setup(self):
        def layer():
            return CELLS[self.cell](self.width, kernel_init=self.kernel_init)

        self.forward = [layer() for _ in range(self.layers)]
        self.backward = [layer() for _ in range(self.layers)]
        self.drop = Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B S E"], mask: Bool[Array, "B S"], *, train: bool
    ) -> tuple[Float[Array, "B S D2"], Float[Array, "B D"]]:
        """[forward; backward], zero in the padding, and the last backward output."""
        start = zero_state(self.cell, len(x), self.width, x.dtype)
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = self.drop(x, deterministic=not train)
            onward, _ = forward(x, start, mask, train=train)
            back, first = backward(x, start, mask, train=train, reverse=True)
            x = jnp.concatenate([onward, back], axis=-1)
        return jnp.where(mask[..., None], x, 0), backward.output(first)


class Readout(nn.Module):
    """A sum of linear maps, then a nonlinearity: what is seen becomes what predicts.

        tanh:    t = tanh(W [a; b; ..] + bias)
        maxout:  t_j = max(u_(2j), u_(2j+1)),  u = W [a; b; ..] + bias
                 (Goodfellow et al. 2013, as Bahdanau et al. 2015, appendix A.2.2)

    Attributes:
      kind: "tanh" or "maxout".
      width: of t.
    """

    kind: str
    width: int
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, *parts: Float[Array, "..."]) -> Float[Array, "..."]:
        pieces = 2 if self.kind == "maxout" else 1
        joined = Dense(
            (pieces * self.width,),
            ("embed", "mlp"),
            kernel_init=self.kernel_init,
            name="proj",
        )(jnp.concatenate(parts, axis=-1))
        if self.kind == "tanh":
            return jnp.tanh(joined)
        return joined.reshape(*joined.shape[:-1], self.width, 2).max(axis=-1)
