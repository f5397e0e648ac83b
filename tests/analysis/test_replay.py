"""Batches without a finite loss are saved exactly, and show why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.replay import diagnose_batch, load_batches
from training.run_dir import RunDirectory
from utils.errors import UserError


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
    params = {"x": jnp.asarray([3.0, 3.0])}
    reports = [
        diagnose_batch(loss, params, (), found[step], jax.random.key(0))
        for step in (7, 8)
    ]
    assert np.isnan(reports[0]["loss"])
    assert (reports[0]["parameters"], reports[0]["gradients"]) == ([], ["x"])
    assert (reports[1]["loss"], reports[1]["gradient_norm"]) == (4.0, 4.0)
    assert reports[1]["gradients"] == []


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.npz").write_text("not a zip")
    for name in ("notes.npz", "missing.npz"):
        with pytest.raises(UserError, match=f"--replay=.*{name} holds no batches"):
            load_batches(tmp_path / name)
