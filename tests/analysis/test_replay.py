"""Batches without a finite loss are saved exactly, and show why."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis.replay import diagnose_batch, load_batches
from training.run_dir import RunDirectory
from training.step import make_state
from utils.errors import UserError

SGD = optax.with_extra_args_support(optax.sgd(0.5))


def loss(variables, carry, batch, rng):
    error = (variables["params"]["x"] - batch["y"]) ** 2
    return {"loss": (error.sum(), jnp.ones(()))}, carry


def test_batches_are_kept_to_the_bit_and_show_what_is_not_finite(tmp_path):
    bad = {"y": np.asarray([1.0, np.nan], np.float32)}
    good = {"y": np.asarray([1.0, 3.0], np.float32)}
    arrays = {"7/y": bad["y"], "8/y": good["y"]}
    RunDirectory(tmp_path).write_arrays("replay/steps.npz", arrays)
    found = load_batches(tmp_path / "replay" / "steps.npz")
    np.testing.assert_array_equal(found[7]["y"], bad["y"])
    state = make_state({"x": jnp.asarray([3.0, 3.0])}, SGD)
    (norms, names), (good_norms, good_names) = [
        diagnose_batch(loss, SGD, state, (), found[step], jax.random.key(0))
        for step in (7, 8)
    ]
    assert np.isnan(norms["loss"])
    assert (names["parameters"], names["gradients"]) == ([], ["x"])
    assert good_norms == {"loss": 4.0, "gradient norm": 4.0, "update norm": 2.0}
    assert not any(good_names.values())


def test_an_update_that_is_not_finite_is_shown_though_its_gradient_is():
    adam = optax.with_extra_args_support(optax.adam(0.1, eps=0.0))
    state = make_state({"x": jnp.asarray([3.0, 1.0])}, adam, ema_decay=0.5)
    batch = {"y": jnp.asarray([1.0, 1.0])}  # the second gradient is 0, and 0 / 0 is nan
    norms, names = diagnose_batch(
        loss, adam, state, (), batch, jax.random.key(0), ema_decay=0.5
    )
    assert (norms["loss"], norms["gradient norm"]) == (4.0, 4.0)
    assert np.isnan(norms["update norm"])
    told = {kind for kind, found in names.items() if found}
    assert told == {"parameters after the update", "average after the update"}
    assert names["parameters after the update"] == ["x"]


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.npz").write_text("not a zip")
    for name in ("notes.npz", "missing.npz"):
        with pytest.raises(UserError, match=f"--replay=.*{name} holds no batches"):
            load_batches(tmp_path / name)
