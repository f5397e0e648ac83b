"""Tests of recurrent cells against their formulas, as loops in NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from helpers.architectures import random_parameters, small_config
from models.rnn.cells import CELLS, Readout, orthogonal_per_gate, zero_state
from models.rnn.model import Bidirectional

# All different, so that a swapped axis cannot pass.
B, T, E, D, P = 2, 4, 3, 5, 7


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(h, x, w, b, u, params):
    """Computes PyTorch's GRU: reset gate after the product, z weights the old state."""
    (wr, wz, wn), (br, bz, bn), (ur, uz, un) = (
        np.split(m, 3, axis=-1) for m in (w, b, u)
    )
    r = sigmoid(x @ wr + br + h @ ur)
    z = sigmoid(x @ wz + bz + h @ uz)
    n = np.tanh(x @ wn + bn + r * (h @ un + params["candidate_bias"]))
    return (1 - z) * n + z * h


def gru_reset_before(h, x, w, b, u, params):
    """Computes the GRU of Bahdanau et al., A.1.1: z weights the new state."""
    (wr, wz, wn), (br, bz, bn), (ur, uz, un) = (
        np.split(m, 3, axis=-1) for m in (w, b, u)
    )
    r = sigmoid(x @ wr + br + h @ ur)
    z = sigmoid(x @ wz + bz + h @ uz)
    n = np.tanh(x @ wn + bn + (r * h) @ un)
    return (1 - z) * h + z * n


def lstm(state, x, w, b, u, params):
    """Computes an LSTM; the order of gates is input, forget, cell, output."""
    h, c = state
    i, f, g, o = np.split(x @ w + b + h @ u, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


ORACLES = {"gru": gru, "gru_reset_before": gru_reset_before, "lstm": lstm}
NAMES = tuple(CELLS)


@functools.cache
def make(name):
    """Returns a cell, its parameters, all of them nonzero, an input and a state."""
    cell = CELLS[name](D)
    start = zero_state(name, B, D)
    x, mask = random(B, T, E, seed=1), jnp.ones((B, T), bool)
    init = jax.jit(functools.partial(cell.init, train=False))
    params = init(jax.random.key(0), x, start, mask)["params"]
    leaves, tree = jax.tree.flatten(nn.meta.unbox(params))
    noise = [leaf + 0.5 * random(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    state = jax.tree.map(lambda leaf: leaf + random(B, D, seed=9), start)
    return cell, tree.unflatten(noise), x, state


def run(name, x, state, mask, **options):
    cell, params, _, _ = make(name)
    apply = jax.jit(functools.partial(cell.apply, train=False, **options))
    return apply({"params": params}, x, state, mask)


def expected(name, x, state, steps):
    """Returns the states of one row, in the order of `steps`."""
    params = jax.tree.map(np.asarray, make(name)[1])
    w, b = params["input"]["kernel"], params["input"]["bias"]
    found = []
    for t in steps:
        state = ORACLES[name](state, x[t], w, b, params["recurrent"], params)
        found.append(state)
    return found


@pytest.mark.parametrize(
    ("name", "reverse"), [("gru", False), ("gru_reset_before", True), ("lstm", False)]
)
def test_a_cell_computes_its_formula_in_both_directions(name, reverse):
    _, _, x, state = make(name)
    outputs, last = run(name, x, state, jnp.ones((B, T), bool), reverse=reverse)
    steps = list(reversed(range(T))) if reverse else list(range(T))
    for row in range(B):
        mine = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), state)
        found = expected(name, np.asarray(x[row]), mine, steps)
        for t, there in zip(steps, found, strict=True):
            there = there[0] if name == "lstm" else there
            np.testing.assert_allclose(outputs[row, t], there, atol=1e-5)
        ours = jax.tree.map(lambda leaf, row=row: leaf[row], last)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, found[-1]
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_step_keeps_the_state(name):
    _, _, x, state = make(name)
    mask = jnp.asarray([[True, False, True, False], [False] * 4])
    _, last = run(name, x, state, mask)
    _, short = run(
        name, x[:1, ::2], jax.tree.map(lambda a: a[:1], state), mask[:1, ::2]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-6), last, short
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), last, state)


@pytest.mark.parametrize("name", NAMES)
def test_initial_recurrent_weights_are_orthogonal_per_gate(name):
    cell = CELLS[name](D)
    inputs = (jnp.zeros((1, 1, E)), zero_state(name, 1, D), jnp.ones((1, 1), bool))
    params = nn.meta.unbox(cell.init(jax.random.key(0), *inputs, train=False))
    recurrent = np.asarray(params["params"]["recurrent"])
    assert recurrent.shape == (D, cell.gates * D)
    for gate in np.split(recurrent, cell.gates, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(D), atol=1e-5)


def test_weight_dropout_uses_one_mask_for_all_steps():
    _, params, _, state = make("lstm")
    cell = CELLS["lstm"](D, weight_dropout=0.5)
    x, mask = jnp.zeros((B, 1, E)), jnp.ones((B, 1), bool)

    def twice(cell, x, mask):
        return cell(x, state, mask, train=True)

    def recurrent_seen(rng, length):
        """Returns where the gradient by U is not 0: where U was not dropped."""

        def total(recurrent):
            call = nn.apply(twice, cell)
            changed = {**params, "recurrent": recurrent}
            long = (jnp.repeat(x, length, 1), jnp.repeat(mask, length, 1))
            return call({"params": changed}, *long, rngs={"dropout": rng})[0].sum()

        return np.asarray(jax.jit(jax.grad(total))(params["recurrent"])) != 0

    one = recurrent_seen(jax.random.key(1), 1)
    np.testing.assert_array_equal(one, recurrent_seen(jax.random.key(1), 3))
    assert 0.3 < one.mean() < 0.7


def test_weight_dropout_scales_the_remaining_weights():
    _, params, _, _ = make("gru")
    cell = CELLS["gru"](D, weight_dropout=0.2)

    def drop(cell):
        return cell.drop_weights(cell.recurrent, deterministic=False)

    rngs = {"dropout": jax.random.key(0)}
    kept = np.asarray(nn.apply(drop, cell)({"params": params}, rngs=rngs))
    there = kept != 0
    np.testing.assert_allclose(kept[there], params["recurrent"][there] / 0.8, rtol=1e-5)
    assert not there.all()


@pytest.mark.parametrize("name", ["gru_reset_before", "lstm"])
def test_an_encoder_concatenates_both_directions(name):
    encoder = Bidirectional(small_config("rnn", cell=name, layers=1, width=D))
    x, mask = random(B, T, E, seed=1), jnp.arange(T) < jnp.asarray([[T], [T - 1]])
    init = functools.partial(encoder.init, jax.random.key(0), train=False)
    variables = random_parameters(init, x, mask)
    apply = jax.jit(functools.partial(encoder.apply, train=False))
    both, first = apply(variables, x, mask)
    params = variables["params"]
    start = zero_state(name, B, D)
    for side, reverse in (("forward_0", False), ("backward_0", True)):
        apply = functools.partial(CELLS[name](D).apply, train=False, reverse=reverse)
        alone, last = jax.jit(apply)({"params": params[side]}, x, start, mask)
        part = both[..., D:] if reverse else both[..., :D]
        np.testing.assert_allclose(part, alone * mask[..., None], atol=1e-6)
    np.testing.assert_array_equal(first, CELLS[name].output(last))
    np.testing.assert_allclose(first, both[:, 0, D:], atol=1e-6)


@pytest.mark.parametrize("kind", ["tanh", "maxout"])
def test_a_readout_computes_its_formula(kind):
    module, parts = Readout(kind, P), (random(B, E, seed=1), random(B, D, seed=2))
    params = nn.meta.unbox(module.init(jax.random.key(0), *parts))["params"]
    w = np.asarray(params["proj"]["kernel"])
    b = np.asarray(random(w.shape[1], seed=3))
    params = {"proj": {"kernel": w, "bias": b}}
    found = module.apply({"params": params}, *parts)
    parts = [np.asarray(part) for part in parts]
    for row in range(B):
        u = parts[0][row] @ w[:E] + parts[1][row] @ w[E:] + b
        pairs = [max(u[2 * j], u[2 * j + 1]) for j in range(len(u) // 2)]
        out = np.tanh(u) if kind == "tanh" else pairs
        np.testing.assert_allclose(found[row], out, atol=1e-5)


def decompositions(jaxpr):
    """Yields the rank of each array whose matrices a program decomposes."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "qr":
            yield equation.invars[0].aval.ndim
        for inner in jaxprs_in_params(equation.params):
            yield from decompositions(inner)


def test_gates_are_orthogonal_and_decomposed_one_by_one():
    # A batch of decompositions can deadlock on a machine with two cores.
    program = jax.make_jaxpr(orthogonal_per_gate, static_argnums=1)(
        jax.random.key(0), (5, 15)
    )
    assert list(decompositions(program.jaxpr)) == [2, 2, 2]
    gates = np.split(np.asarray(orthogonal_per_gate(jax.random.key(0), (5, 15))), 3, 1)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(5), atol=1e-5)
    assert not np.allclose(gates[0], gates[1], atol=1e-3)
