"""Copies of a run with a fault in a checkpoint or in a batch that it kept."""

import shutil
from pathlib import Path

import jax
import numpy as np

from analysis.step_replay.replay import Replay
from training.checkpoint import Checkpoints
from training.optim.param_groups import map_named
from training.run_dir import RunDirectory


def with_parameter(workdir, folder, step, name, change):
    """A copy of a run whose checkpoint has another parameter.

    Args:
      change: is called with the parameter, a copy on the host, which it changes.
    """
    copy = copied(workdir, folder)
    directory = RunDirectory(copy)
    replay = Replay.open(str(copy))
    inputs = replay.seek(step + 1)
    content = replay.setup.checkpoint_state(inputs.state, inputs.carry)
    changed = []

    def changing(this, leaf):
        if this != name:
            return leaf
        changed.append(this)
        array = np.array(leaf)
        change(array)
        return jax.device_put(array, leaf.sharding)

    params = map_named(changing, content["state"].params)
    assert changed == [name]
    content["state"] = content["state"].replace(params=params)
    checkpoints = Checkpoints(directory.checkpoints, directory.run_id, last=100)
    checkpoints.save(step, content, checkpoints.progress(step), None)
    checkpoints.close()
    return str(copy)


def with_batch(workdir, folder, step, change):
    """A copy of a run that kept another batch of a step.

    Args:
      change: is called with the batch on the host, which it changes.
    """
    copy = copied(workdir, folder)
    batch = Replay.open(str(workdir)).setup.batches[step - 1]
    batch = {key: np.array(leaf) for key, leaf in batch.items()}
    change(batch)
    arrays = {f"{step}/{key}": leaf for key, leaf in batch.items()}
    RunDirectory(copy).write_arrays(f"replay/steps-{step}-{step}.npz", arrays)
    return str(copy)


def copied(workdir, folder):
    """A copy of a run that finds its data."""
    shutil.copytree(workdir, Path(folder))
    return Path(folder)
