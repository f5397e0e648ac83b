"""Comparison of two small programs, operation by operation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.diverge.evidence import ArrayDifference
from analysis.diverge.programs import backward_order, compare_programs
from analysis.step_replay.program import Program

B, D = 3, 4
INPUTS = ["params/w", "batch/x"]
OUTPUTS = ["params/w", "gradients/w", "metrics/loss/0", "metrics/loss/1"]


def program(loss, rate=0.1, seed=0):
    """A step of gradient descent on a loss of (w, x, key)."""

    def step(w, x):
        key = jax.random.fold_in(jax.random.key(seed), 3)
        value, gradient = jax.value_and_grad(loss)(w, x, key)
        return w - rate * gradient, gradient, value * B, jnp.float32(B)

    draw = np.random.default_rng(0)
    w, x = (jnp.asarray(draw.normal(size=(B, D)), jnp.float32) for _ in range(2))
    return Program(jax.make_jaxpr(step)(w, x), [w, x], INPUTS, OUTPUTS)


def plain(w, x, key):
    with jax.named_scope("scale"):
        y = x * 2.0
    with jax.named_scope("hidden"):
        y = jnp.tanh(y * w)
    return (y**2).mean()


def other_constant(w, x, key):
    with jax.named_scope("scale"):
        y = x * 2.5
    with jax.named_scope("hidden"):
        y = jnp.tanh(y * w)
    return (y**2).mean()


def in_bfloat16(w, x, key):
    with jax.named_scope("scale"):
        y = x * 2.0
    with jax.named_scope("hidden"):
        y = (y.astype(jnp.bfloat16) * w.astype(jnp.bfloat16)).astype(jnp.float32)
        y = jnp.tanh(y)
    return (y**2).mean()


def in_other_order(w, x, key):
    with jax.named_scope("hidden"):
        y = jnp.tanh(x * (2.0 * w))
    return (y**2).mean()


def with_dropout(w, x, key):
    keep = jax.random.bernoulli(key, 0.5, x.shape)
    return plain(w, jnp.where(keep, x, 0.0), key)


def test_equal_programs_are_equal():
    found = compare_programs(program(plain), program(plain))
    assert found.is_equal
    assert found.modules == found.gradients == ()
    assert found.loss[0] == found.loss[1]


def test_a_constant_that_differs_is_shown_with_its_operation():
    found = compare_programs(program(plain), program(other_constant))
    assert found.first.operation.startswith("mul -> float32[3, 4]")
    assert "scale" in found.first.operation
    assert found.first.constants == ("2", "2.5")
    assert found.split is None
    assert [one.name for one in found.modules] == ["scale", "hidden"]
    assert found.gradient_distance > 0.01


def test_the_first_operations_that_are_not_the_same_are_shown():
    found = compare_programs(program(plain), program(in_bfloat16))
    assert found.first is None
    assert found.split[0].startswith("mul -> float32")
    assert found.split[1].startswith("convert_element_type -> bfloat16")
    assert [one.name for one in found.modules] == ["hidden"]
    assert 1e-4 < found.size < 1e-1


def test_the_same_formula_in_another_order_differs_by_rounding():
    found = compare_programs(program(plain), program(in_other_order))
    assert found.split is not None
    assert 0 <= found.size < 1e-6


def test_random_numbers_of_another_seed_are_recognised():
    found = compare_programs(program(with_dropout), program(with_dropout, seed=1))
    assert found.first.is_random
    assert found.first.constants == ("0", "1")


def test_an_update_that_differs_alone_is_measured():
    found = compare_programs(program(plain), program(plain, rate=0.2))
    assert found.gradient_distance == 0
    assert found.size == found.update_distance == pytest.approx(1, rel=1e-3)
    assert found.first.constants == ("0.1", "0.2")


def test_gradients_are_listed_from_the_last_module_to_the_first():
    names = ("embed/table", "stack/layers_0/w", "stack/layers_1/w", "stack/norm/scale")
    arrays = [ArrayDifference(f"gradients/{name}", 1.0, 1.0) for name in names]
    modules = ["embed", "stack", "stack/layers_0", "stack/layers_1", "stack/norm"]
    found = [one.name for one in backward_order(arrays, modules)]
    assert found == [f"gradients/{name}" for name in reversed(names)]
