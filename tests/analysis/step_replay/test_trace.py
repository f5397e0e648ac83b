"""A traced program, one equation at a time, computes what the program computes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from analysis.step_replay.trace import LOOP_INPUT, LOOP_OUTPUT, trace


def evaluated(function, *args):
    """The equations of a function, its outputs, and what it gives under `jit`."""
    program = jax.make_jaxpr(function)(*args)
    equations, steps = [], trace(program, jax.tree.leaves(args))
    while True:
        try:
            equations.append(next(steps))
        except StopIteration as stop:
            outputs = [value.array for value in stop.value]
            return equations, outputs, jax.tree.leaves(jax.jit(function)(*args))


def assert_equal(outputs, expected):
    assert len(outputs) == len(expected)
    for output, leaf in zip(outputs, expected, strict=True):
        assert output.shape == leaf.shape
        np.testing.assert_allclose(output, leaf, rtol=1e-6)


def loops(x, n):
    def body(carry, row):
        carry = jnp.tanh(carry + row)
        return carry, carry.sum()

    def repeat(carry):
        k, x = carry
        return k + 1, jax.lax.cond(k % 2 == 0, jnp.sin, lambda x: 2 * x, x)

    last, sums = jax.lax.scan(body, x[0], x, reverse=True)
    _, x = jax.lax.while_loop(lambda carry: carry[0] < n, repeat, (0, x))
    return last, sums, jax.nn.softplus(x), jax.nn.relu(x)


def test_loops_branches_and_calls_are_entered():
    x = jnp.linspace(-1.0, 2.0, 12).reshape(4, 3)
    equations, outputs, expected = evaluated(loops, x, 3)
    assert_equal(outputs, expected)
    tanh = [e for e in equations if e.primitive == "tanh"]
    assert [e.iteration for e in tanh] == [(3,), (2,), (1,), (0,)]
    assert len({e.key for e in tanh}) == 1
    sin = [e for e in equations if e.primitive == "sin"]
    assert [e.iteration for e in sin] == [(0,), (2,)]
    assert {LOOP_INPUT, LOOP_OUTPUT, "logistic", "max"} & {
        e.primitive for e in equations
    } >= {LOOP_INPUT, LOOP_OUTPUT, "max"}
    ids = [value.id for e in equations for value in e.results]
    assert len(ids) == len(set(ids))


def test_inputs_of_an_equation_are_results_of_others_or_constants():
    x = jnp.linspace(-1.0, 2.0, 12).reshape(4, 3)
    known = {0, 1}
    for equation in evaluated(loops, x, 3)[0]:
        assert {v.id for v in equation.inputs} <= known | {None}
        known |= {value.id for value in equation.results}


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(3, name="up")(x))


class Model(nn.Module):
    def setup(self):
        self.layers = [Layer(), nn.remat(Layer)()]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.sum()


def test_equations_have_the_module_and_the_direction():
    x = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
    params = Model().init(jax.random.key(0), x)
    equations, outputs, expected = evaluated(jax.grad(Model().apply), params, x)
    assert_equal(outputs, expected)
    products = [
        (e.module, e.direction) for e in equations if e.primitive == "dot_general"
    ]
    assert ("layers_0/up", "forward") in products
    assert ("layers_1/up", "backward") in products
    first = [e for e in equations if e.module == "layers_0" and e.primitive == "tanh"]
    assert "test_trace.py" in first[0].source
    assert first[0].source.endswith("(__call__)")
