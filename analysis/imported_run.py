"""Run directory of a model whose weights were trained elsewhere."""

import json

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer
from experiment import train, validate
from experiment.build import open_dataset
from experiment.setup import num_parameters
from training.checkpoint import Checkpoints
from training.profiling.environment import environment_info
from training.run_dir import RunDirectory
from training.step import TrainState
from utils.errors import UserError

NEVER = -1e9  # a bias whose probability is 0 next to any other


def check_is_new(workdir: str) -> RunDirectory:
    """Returns a new run directory. Raises UserError if it is not empty."""
    directory = RunDirectory(workdir)
    if directory.path.exists() and any(directory.path.iterdir()):
        raise UserError(f"--workdir={directory.path} is not empty; choose another")
    return directory


def write_run(
    workdir: str, cfg: ConfigDict, params: PyTree, tokenizer: Tokenizer, origin: dict
) -> dict:
    """Writes a run directory as training does; returns the content of about.json.

    Args:
      origin: source of the weights, for about.json.

    Raises UserError for a directory that is not empty, an invalid config or corpus.
    """
    directory = check_is_new(workdir)
    validate.validate_config(cfg)
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, {})
    if cfg.data.name:  # eval.py scores a run only on the corpus of these hashes
        dataset = open_dataset(cfg, {"text": tokenizer})
        validate.check_corpus(cfg, dataset)
        about = train.run_metadata(state, dataset, None)
    else:
        about = {**environment_info(), "parameters": num_parameters(params)}
        about |= {"hashes": {}, "languages": []}
    about["imported"] = origin
    directory.write_tokenizers({"text": dump_tokenizer(tokenizer)})
    directory.write_places(cfg.data)
    directory.write_about(about)
    checkpoints = Checkpoints(directory.checkpoints, directory.run_id)
    checkpoints.save(0, {"state": state}, {}, None)
    checkpoints.close()
    # Written last, because it marks the directory as a run.
    directory.write_json("config.json", json.loads(cfg.to_json_best_effort()))
    return about
