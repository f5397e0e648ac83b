"""Opening of run directories: config, tokenizers, model and parameters."""

import dataclasses
import hashlib
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jaxtyping import PyTree
from ml_collections import ConfigDict

from configs import base
from data.dataset import Dataset
from experiment.build import (
    Experiment,
    build_experiment,
    check_data,
    open_dataset,
    read_tokenizers,
)
from experiment.validate import check_values
from training.checkpoint import Checkpoints
from training.checkpoint_params import resolve_steps, restore_params
from training.optim.param_groups import named_leaves
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.safetensors import read_safetensors

WEIGHTS = "model.safetensors"  # parameters of a folder without checkpoints


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run directory with its model and parameters.

    Attributes:
      steps: the checkpoint, or those whose mean the parameters are.
    """

    directory: RunDirectory
    experiment: Experiment
    variables: PyTree
    steps: tuple[int, ...]

    @property
    def step(self) -> int:
        """The newest step of the parameters."""
        return self.steps[-1]

    def open_dataset(self) -> Dataset:
        """Opens the corpus; UserError unless the run was trained on it."""
        dataset = open_dataset(self.experiment.cfg, self.experiment.tokenizers)
        check_data(self.directory, dataset)
        return dataset

    def inputs(self, lines: Iterable[str]) -> tuple:
        """Returns the arguments of `predict` and its like (tasks/base.py)."""
        model, cfg = self.experiment.evaluation_model, self.experiment.cfg
        return model, self.variables, lines, cfg

    def name(self, split: str) -> str:
        """Returns the stem of the files that belong to a split."""
        if len(self.steps) == 1:
            return f"{split}-{self.step}"
        return f"{split}-{self.step}-average-{len(self.steps)}"


def open_experiment(
    workdir: str, changes: dict | None = None
) -> tuple[RunDirectory, Experiment]:
    """Opens the directory of a run with its model, but without its parameters.

    Args:
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises:
      UserError: there is no such run.
    """
    directory = RunDirectory(workdir)
    cfg = read_config(directory)
    for section, values in (changes or {}).items():
        cfg[section].update_from_flattened_dict(values)
    check_values(cfg)
    about = directory.read_json("about.json") if directory.is_complete else {}
    if "languages" not in about:
        raise UserError(
            f"{directory.path}/about.json is missing or has no languages: the run "
            "was killed before it started, so train it again"
        )
    languages = tuple(about["languages"])
    return directory, build_experiment(cfg, read_tokenizers(directory), languages)


def open_run(
    workdir: str, checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Opens a run; its corpus is not needed.

    Args:
      checkpoint: "best", "last", a step, or "average:N" of the newest N.
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    directory, experiment = open_experiment(workdir, changes)
    if (directory.path / WEIGHTS).exists():
        about = directory.read_json("about.json")
        params, steps = read_exported_weights(directory, about)
    else:
        run_id = directory.run_id
        checkpoints = Checkpoints(directory.checkpoints, run_id, is_reader=True)
        steps = resolve_steps(checkpoints, checkpoint)
        params = restore_params(checkpoints, *steps)
        checkpoints.close()
    _check_parameters(directory, experiment, params)
    return TrainedRun(directory, experiment, {"params": params}, steps)


def read_exported_weights(
    directory: RunDirectory, about: dict
) -> tuple[PyTree, tuple[int, ...]]:
    """Reads the parameters that `python -m analysis.export --format=safetensors` wrote.

    Returns the parameters and the steps of their checkpoints.

    Raises:
      UserError: the file is not the one that about.json describes.
    """
    path = directory.path / WEIGHTS
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    exported = about.get("exported", {})
    if digest != exported.get("sha256"):
        raise UserError(f"{path} is damaged: its digest is not that of about.json")
    params = unflatten_dict(read_safetensors(path), sep="/")
    return jax.tree.map(jnp.asarray, params), tuple(exported["steps"])


def _check_parameters(directory: RunDirectory, experiment: Experiment, params) -> None:
    """Compares the names and shapes of a checkpoint with those of the model."""

    def shapes(params):
        return {name: leaf.shape for name, leaf in named_leaves(params).items()}

    there, here = shapes(params), shapes(nn.meta.unbox(experiment.parameters()))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"{directory.path}: its checkpoint does not belong to the model that "
                "its config.json describes (was the file changed, or is the run of "
                f"another version of this code?): {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} "
                "here"
            )


def read_config(directory: RunDirectory) -> ConfigDict:
    """Returns the config of a run, with defaults for keys it does not have."""
    try:
        stored = directory.read_config()
        cfg = base.get_config(stored["model"]["name"])
        cfg.update(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory.path}/config.json is of another version of this code: {error}"
        ) from error
    return cfg
