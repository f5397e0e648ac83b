"""Devices as a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from training.parallel.mesh import make_mesh
from training.parallel.partitioner import make_partitioner
from utils.errors import UserError


def test_meshes_that_do_not_fit_the_devices_are_refused():
    count = len(jax.devices())
    assert make_mesh(-1, 1, 1).shape == {"data": count, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=f"multiply to {count} devices"):
        make_mesh(1, 1, count + 1)
    with pytest.raises(UserError, match="or -1 for one of them"):
        make_mesh(-1, -1, 1)


def test_a_mode_that_cannot_be_is_refused_with_what_would_do():
    cfg = base.get_config().parallel
    cfg.mode = "shards"
    with pytest.raises(UserError, match="choose one of jit, pmap"):
        make_partitioner(cfg)
    cfg.update(mode="pmap", fsdp=2)
    with pytest.raises(UserError, match=r"set parallel\.mode='jit'"):
        make_partitioner(cfg)


def test_a_checkpoint_holds_the_rows_of_a_batch_and_no_others():
    # Three parts of a batch of 4 rows: 2 rows fill it up.
    partitioner = make_partitioner(base.get_config().parallel, num_microbatches=3)
    fresh = partitioner.init_carry(
        lambda rows: {"memory": jnp.zeros((rows, 2)), "filled": jnp.int32(0)}, 4
    )
    assert fresh["memory"].shape == (6, 2)
    memory = fresh["memory"] + jnp.arange(6.0)[:, None]
    later = {"memory": memory, "filled": jnp.int32(5)}
    stored = partitioner.carry_to_checkpoint(later, 4)
    np.testing.assert_array_equal(stored["memory"][:, 0], [0, 1, 2, 3])
    back = partitioner.carry_from_checkpoint(stored, fresh)
    np.testing.assert_array_equal(back["memory"][:, 0], [0, 1, 2, 3, 0, 0])
    assert int(stored["filled"]) == int(back["filled"]) == 5


def test_a_batch_is_read_in_the_rows_it_has_and_filled_up_with_zeros():
    partitioner = make_partitioner(base.get_config().parallel, num_microbatches=4)
    asked = []

    def part(rows):
        asked.append(rows)
        return {"labels": np.arange(1, 7)[rows, None]}

    found = partitioner.make_global_batch(part, 6)
    assert asked == [slice(0, 6)]
    np.testing.assert_array_equal(found["labels"][:, 0], [1, 2, 3, 4, 5, 6, 0, 0])


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_memory_of_the_compiler_is_returned_before_a_step_runs(mode, monkeypatch):
    events = []
    monkeypatch.setattr(
        "training.parallel.partitioner.return_unused_memory",
        lambda: events.append("returned"),
    )

    def step(state, carry, batch):
        events.append("traced")
        jax.debug.callback(lambda: events.append("ran"))
        return state, carry, batch["tokens"].sum()

    cfg = base.get_config().parallel
    cfg.mode = mode
    partitioner = make_partitioner(cfg)
    state = partitioner.init(lambda: jnp.zeros(3))
    carry = partitioner.init_carry(lambda rows: jnp.zeros((rows, 2)), 2)
    compiled = partitioner.compile(step, state, carry, shapes=2)
    for length in (4, 4, 5):
        batch = partitioner.put_batch({"tokens": np.ones((2, length), np.int32)})
        state, carry, _ = compiled(state, carry, batch)
        jax.effects_barrier()
    assert events == [
        *("traced", "returned", "ran", "ran"),
        *("traced", "returned", "ran"),
    ]
    assert compiled.cache_size() == 2
