"""Parameters of another run, and batches kept for a second look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.nonfinite import diagnose_batch, load_batches, save_batches
from training.step import init_from_params
from utils.errors import UserError


def tree(value, width=2):
    return {
        "encoder": {"kernel": jnp.full((3, width), value), "bias": jnp.full(2, value)},
        "head": {"table": jnp.full((5, 2), value)},
    }


def test_names_that_match_are_taken_and_no_others():
    found = init_from_params(tree(0.0), tree(1.0), "^encoder/.*kernel|^head")
    assert float(found["encoder"]["kernel"].sum()) == 6
    assert float(found["head"]["table"].sum()) == 10
    assert float(found["encoder"]["bias"].sum()) == 0


def test_what_does_not_fit_is_named_with_both_shapes():
    with pytest.raises(
        UserError, match=r"encoder/kernel \(3, 2\) is of shape \(3, 9\)"
    ):
        init_from_params(tree(0.0), tree(1.0, width=9), ".*")
    there = tree(1.0)
    del there["head"]
    with pytest.raises(UserError, match=r"head/table \(5, 2\) is missing there"):
        init_from_params(tree(0.0), there, ".*")
    assert (
        float(init_from_params(tree(0.0), there, "encoder")["head"]["table"].sum()) == 0
    )
    with pytest.raises(UserError, match="matches no parameter"):
        init_from_params(tree(0.0), tree(1.0), "decoder")


def loss(variables, carry, batch, rng):
    error = (variables["params"]["x"] - batch["y"]) ** 2
    return {"loss": (error.sum(), jnp.ones(()))}, carry


def test_batches_are_kept_to_the_bit_and_show_what_is_not_finite(tmp_path):
    bad = {"y": np.asarray([1.0, np.nan], np.float32)}
    good = {"y": np.asarray([1.0, 3.0], np.float32)}
    path = save_batches(tmp_path / "replay" / "steps.npz", {7: bad, 8: good})
    found = load_batches(path)
    np.testing.assert_array_equal(found[7]["y"], bad["y"])
    params = {"x": jnp.asarray([3.0, 3.0])}
    told = [
        diagnose_batch(loss, params, (), found[step], jax.random.key(0))
        for step in (7, 8)
    ]
    assert np.isnan(told[0]["loss"])
    assert (told[0]["parameters"], told[0]["gradients"]) == ([], ["x"])
    assert (told[1]["loss"], told[1]["gradient_norm"]) == (4.0, 4.0)
    assert told[1]["gradients"] == []


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.npz").write_text("not a zip")
    for name in ("notes.npz", "missing.npz"):
        with pytest.raises(UserError, match=f"--replay=.*{name} holds no batches"):
            load_batches(tmp_path / name)
