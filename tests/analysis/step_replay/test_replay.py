"""Steps of a run computed again are the steps of the run."""

import json
import shutil

import jax
import numpy as np
import pytest

from analysis.step_replay.batches import read_batches, read_kept_batches
from analysis.step_replay.program import step_program
from analysis.step_replay.replay import Replay
from analysis.step_replay.trace import trace
from helpers.patches import steps_compiled_once
from helpers.text_runs import train_text
from training.checkpoint import PROGRESS
from training.checksums import write_checksums
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import DATA_PLACES

STEPS = 6
CHANGES = {
    "model": "transformer_xl",
    "model.layers": 1,
    "model.dropout": 0.1,
    "steps": STEPS,
    "every.eval": 0,
    "every.checkpoint": 2,
    "optim.name": "sgd",
    "optim.momentum": 0.9,
    "optim.plateau_factor": 0.5,
    "keep.last": 2,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of 6 steps with the checkpoints 4 and 6."""
    return train_text(tmp_path_factory.mktemp("runs"), "run", **CHANGES)


@pytest.fixture(scope="module")
def opened(workdir):
    """A replay, whose step is compiled once for it and those that tests open."""
    with steps_compiled_once({}):
        yield Replay.open(str(workdir))


def moved(workdir, tmp_path):
    """A copy of a run whose data cannot be found."""
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    nowhere = str(tmp_path / "nowhere")
    RunDirectory(copy).write_places(dict.fromkeys(DATA_PLACES, nowhere))
    return copy


def content(replay):
    """State and carry on the host, of the inputs of the next step."""
    inputs = replay.inputs()
    return jax.device_get(replay.setup.checkpoint_state(inputs.state, inputs.carry))


def test_replay_from_the_first_state_leads_to_the_checkpoint(
    workdir, opened, monkeypatch
):
    assert opened.steps == [4, 6]
    opened.seek(5)
    expected = content(opened)
    monkeypatch.setattr(Replay, "steps", [])
    again = Replay.open(str(workdir))
    again.seek(5)
    logged = [row["loss"] for row in again.rows if row["split"] == "train"]
    metrics = again.advance()
    assert metrics["loss"][0] / metrics["loss"][1] == pytest.approx(logged[4])
    again.seek(5)
    jax.tree.map(np.testing.assert_array_equal, content(again), expected)


@pytest.mark.slow  # compiles each operation; test_trace.py has small programs
def test_a_traced_step_computes_what_the_compiled_one_does(workdir):
    replay = Replay.open(str(workdir))
    setup, inputs = replay.on_one_device(replay.seek(5))
    program = step_program(setup, inputs)
    assert len(program.args) == len(program.input_names)
    steps = trace(program.jaxpr, program.args)
    modules = set()
    while True:
        try:
            modules.add(next(steps).module)
        except StopIteration as stop:
            outputs = dict(zip(program.output_names, stop.value, strict=True))
            break
    assert {"stack/layers_0/self_attention", "optimizer"} <= modules
    metrics = replay.advance()
    for index in (0, 1):
        np.testing.assert_allclose(
            outputs[f"metrics/loss/{index}"].array, metrics["loss"][index], rtol=1e-5
        )
    np.testing.assert_allclose(
        outputs["norm"].array, metrics["gradient_norm"][0], rtol=1e-5
    )


def test_a_step_that_cannot_be_replayed_is_refused(workdir, opened, tmp_path):
    for step in (0, STEPS + 1):
        with pytest.raises(UserError, match=rf"--step={step}: .* the steps 1 to 6"):
            opened.seek(step)
    with pytest.raises(
        UserError,
        match=r"--step=4 is 3 steps after the first state.* about .*"
        r"--max_replay_steps=3.*\(4, 6\)",
    ):
        opened.seek(4, max_steps=2)
    copy = moved(workdir, tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        Replay.open(str(copy))


def test_kept_batches_do_without_the_data(workdir, opened, tmp_path):
    batch = opened.setup.batches[4]
    opened.seek(5)
    expected = opened.advance()
    copy = moved(workdir, tmp_path)
    arrays = {f"5/{name}": leaf for name, leaf in batch.items()}
    RunDirectory(copy).write_arrays("replay/steps-5-5.npz", arrays)
    replay = Replay.open(str(copy))
    assert not replay.has_data
    replay.seek(5)
    assert replay.advance()["loss"] == expected["loss"]
    with pytest.raises(UserError, match=r"batch of step 6.* only those of 5; "):
        replay.seek(6)


def test_a_batch_kept_before_another_was_left_out_is_not_replayed(workdir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    batch = Replay.open(str(copy)).setup.batches[5]
    arrays = {f"6/{name}": np.zeros_like(leaf) for name, leaf in batch.items()}
    RunDirectory(copy).write_arrays("replay/spike-6.npz", arrays)
    assert 6 in Replay.open(str(copy)).kept
    metadata = copy / "checkpoints" / "6" / PROGRESS / "metadata"
    skips = [{"step": 6, "batch": 5, "loss": 9.0, "limit": 1.0}]
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"skips": skips}))
    write_checksums(metadata.parent.parent)
    replay = Replay.open(str(copy))
    assert not replay.kept
    np.testing.assert_array_equal(
        replay.host_batch(6)["tokens"], replay.setup.batches.batches[6]["tokens"]
    )
    file = str(copy / "replay" / "spike-6.npz")
    assert 6 in Replay.open(str(copy), batches=file).kept


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"text", b"\x93NUMPY"])
def test_a_file_that_has_no_whole_batch_is_refused(content, tmp_path, capsys):
    (tmp_path / "replay").mkdir()
    path = tmp_path / "replay" / "spike-3.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"spike-3\.npz holds no batches of a run"):
        read_batches(path)
    assert read_kept_batches(RunDirectory(tmp_path)) == {}  # the others are used
    assert "warning: " in capsys.readouterr().err
