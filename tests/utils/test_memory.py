"""Memory of programs: estimates, and inputs that are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils import memory
from utils.errors import UserError
from utils.memory import bounded_jit, peak_bytes


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype))


def test_an_array_lives_from_where_it_is_made_to_where_it_is_last_used():
    def chain(x):  # at most two at once, and what is returned
        for _ in range(5):
            x = jnp.sin(x)
        return x

    def fan(x):  # all five at once
        parts = [jnp.sin(x + i) for i in range(5)]
        return functools.reduce(jnp.minimum, parts)

    assert peak_bytes(chain, array(100)) == 2 * 400
    assert peak_bytes(fan, array(100)) == 6 * 400  # and the sum that is read last


def test_an_alias_takes_no_memory_but_keeps_its_array_alive():
    def views(x):
        y = jnp.sin(x)
        wide = jnp.broadcast_to(y[:, None], (100, 50)).astype(jnp.int32)
        other = jnp.cos(x)
        return wide.max(), other

    assert peak_bytes(views, array(100)) == 400 + 400 + 4
    bare = peak_bytes(lambda x: jnp.cos(jnp.sin(x)), array(100))
    own = peak_bytes(lambda x: jnp.cos(jnp.sin(x)), array(100), result_bytes=50)
    assert (bare, own) == (800, 450)


def test_an_iteration_of_a_loop_adds_to_its_results():
    def loop(xs):
        return jax.lax.map(lambda x: jnp.cos(jnp.sin(x)), xs)

    assert peak_bytes(loop, array(10, 100)) == 10 * 400 + 2 * 400


def test_rematerialised_arrays_are_not_kept():
    def deep(x, *, again):
        def layer(x):
            return jnp.sin(jnp.exp(jnp.sin(x)))

        layer = jax.checkpoint(layer) if again else layer
        for _ in range(8):
            x = layer(x)
        return x.sum()

    kept, again = (
        peak_bytes(jax.grad(functools.partial(deep, again=again)), array(1000))
        for again in (False, True)
    )
    assert kept >= 8 * 3 * 4000
    assert 8 * 4000 <= again < kept / 1.5


def attention(scale, tokens):
    """Has a matrix of [T, T] for each example, which no compiler can leave out."""
    x = tokens.astype(jnp.float32)[..., None]
    weights = jax.nn.softmax(scale * (x @ x.mT), axis=-1)
    return weights @ x


def test_inputs_that_need_more_memory_than_is_free_are_refused(monkeypatch):
    program = bounded_jit(attention, static_argnums=0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    assert program(2.0, jnp.ones((2, 100), int)).shape == (2, 100, 1)
    with pytest.raises(UserError, match=r"^2 x 1000 tokens at once need 0\.0\d GB"):
        program(2.0, jnp.ones((2, 1000), int))
    with pytest.raises(UserError, match=r"^2 x 1000 tokens"):
        program.check(2.0, array(2, 1000, dtype="int32"))


def test_the_compiler_decides_where_an_estimate_is_large(monkeypatch):
    def outer_sum(x):  # one loop without an array of [N, N]
        return (jnp.sin(x)[:, None] * jnp.cos(x)).sum(axis=1)

    x = jnp.ones(2000)
    assert peak_bytes(outer_sum, x) > 10**7
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    assert bounded_jit(outer_sum, static_argnums=())(x).shape == x.shape


def test_a_container_has_no_more_than_its_limit(monkeypatch, tmp_path):
    machine = memory.free_bytes()
    assert machine > 10**6
    monkeypatch.setattr(memory, "CGROUP_LIMIT", tmp_path / "memory.max")
    for text, expected in (("max", machine), ("4096", 4096)):
        (tmp_path / "memory.max").write_text(f"{text}\n")
        assert memory.free_bytes() == pytest.approx(expected, rel=0.5)
