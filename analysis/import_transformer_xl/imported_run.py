"""A run directory for weights that were trained elsewhere."""

import json

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.dataset import open_dataset
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import KINDS, dump_tokenizer
from experiment import train, validate
from experiment.setup import num_parameters
from training.checkpoint import Checkpoints
from training.profiling.environment import environment_info
from training.run_dir import RunDirectory
from training.step import TrainState
from utils.errors import UserError


def check_new(workdir: str) -> RunDirectory:
    """A run directory to be. Raises UserError where something is there already."""
    directory = RunDirectory(workdir)
    if directory.path.exists() and any(directory.path.iterdir()):
        raise UserError(f"--workdir={directory.path} is not empty: choose another")
    return directory


def write_run(
    workdir: str, cfg: ConfigDict, params: PyTree, words: list[str], origin: dict
) -> dict:
    """Writes what training would have left, but for its optimiser and carry.

    Args:
      words: what `cfg.data.tokenizer` knows, our special ones first.
      origin: where the weights are from, for about.json.

    Returns what about.json holds. Raises UserError for a directory that is not
    empty, or a config or corpus that cannot be.
    """
    directory = check_new(workdir)
    validate.validate_config(cfg)
    tokenizer = KINDS[cfg.data.tokenizer](words)
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, {})
    about = {**about_run(cfg, state, tokenizer), "imported": origin}
    directory.write_tokenizers({"text": dump_tokenizer(tokenizer)})
    directory.write_about(about)
    checkpoints = Checkpoints(directory.checkpoints)
    checkpoints.save(0, {"state": state}, {}, None)
    checkpoints.close()
    # Last, because it is what makes a directory a run.
    directory.write_json("config.json", json.loads(cfg.to_json_best_effort()))
    return about


def about_run(cfg: ConfigDict, state: TrainState, tokenizer: Tokenizer) -> dict:
    """What about.json says of it, the corpus included if one is named.

    eval.py scores a run on the corpus it knows, and on no other.
    """
    if not cfg.data.name:
        number = num_parameters(state.params)
        return {
            **environment_info(),
            "parameters": number,
            "hashes": {},
            "languages": [],
        }
    dataset = open_dataset(cfg.data, {"text": tokenizer})
    validate.check_corpus(cfg, dataset)
    return train.run_metadata(state, dataset, None)
