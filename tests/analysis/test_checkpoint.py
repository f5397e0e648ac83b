"""The arrays of a checkpoint as a table."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from analysis.checkpoint import describe, norm
from helpers.entry_points import assert_refused, run
from training.checkpoint import Checkpoints
from training.run_dir import FORMAT, RunDirectory


@pytest.fixture
def workdir(tmp_path):
    """A run with one checkpoint."""
    directory = RunDirectory(tmp_path / "run")
    directory.write_json("config.json", {"data": {}})
    directory.write_json("about.json", {"format": FORMAT, "run_id": "ab"})
    checkpoints = Checkpoints(directory.checkpoints, "ab")
    params = {"cell": {"kernel": jnp.full((3, 4), 0.5)}, "bias": jnp.zeros(2)}
    bad = jnp.asarray([1.0, np.inf], jnp.bfloat16)
    state = {"params": params, "opt_state": (bad,), "step": jnp.int32(7)}
    checkpoints.save(7, {"state": state, "carry": {}}, {}, None)
    checkpoints.close()
    return directory.path


def test_arrays_have_their_shapes_types_sizes_and_norms(workdir):
    lines = describe(workdir / "checkpoints" / "7" / "content")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["state/params/cell/kernel"] == ["3x4", "float32", "48", "1.73205"]
    assert rows["state/params/bias"] == ["2", "float32", "8", "0"]
    assert rows["state/opt_state/0"] == ["2", "bfloat16", "4", "nan"]
    assert rows["state/params"] == ["14", "numbers", "56", "bytes"]


def test_the_norm_of_large_numbers_does_not_overflow():
    assert norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30)


def test_the_program_names_what_is_not_there(workdir, tmp_path):
    done = run("analysis/checkpoint.py", workdir)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith(f"{workdir}, step 7\narray ")
    assert_refused(run("analysis/checkpoint.py", workdir, "9"), "'9'", "7")
    assert_refused(run("analysis/checkpoint.py", tmp_path), "no run in")
    assert_refused(run("analysis/checkpoint.py"), "name a run")


def test_a_damaged_checkpoint_is_refused(workdir):
    content = workdir / "checkpoints" / "7" / "content"
    for path in filter(Path.is_file, content.rglob("*")):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run("analysis/checkpoint.py", workdir, "7")
    warning, error = done.stderr.decode().splitlines()
    assert "warning: checkpoint 7 is damaged" in warning
    assert error == "error: the arrays of checkpoint 7 cannot be read; name another one"
    assert (done.returncode, done.stdout) == (2, b"")
