"""Run directory of an imported model, and the vocabulary of its tokenizer.

Our tokenizers begin with <pad>, <eos>, <unk>, <bos>; published vocabularies do not.
`special_first` permutes the words, and with them the rows of the model's tables.
Special words that the vocabulary lacks get probability 0.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.dataset import open_dataset
from data.tokenizers.base import EOS, SPECIAL
from data.tokenizers.build import KINDS, dump_tokenizer
from experiment import train, validate
from experiment.setup import num_parameters
from training.checkpoint import Checkpoints
from training.profiling.environment import environment_info
from training.run_dir import RunDirectory
from training.step import TrainState
from utils.errors import UserError
from utils.text_files import read_lines

NEVER = -1e9  # a bias whose probability is 0 next to any other


def read_words(path: Path) -> list[str]:
    """Reads words by id. Raises UserError for text not UTF-8, or a repeated word."""
    words = read_lines("--vocab", path)
    first: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        before = first.setdefault(word, number)
        if before != number:
            raise UserError(f"--vocab={path}: lines {before} and {number} are {word!r}")
    return words


def special_first(
    model: dict, params: dict, words: list[str], *, end: str, unknown: str
) -> tuple[dict, dict, list[str]]:
    """Reorders config, parameters and words to the order of our tokenizers.

    Raises UserError if the words do not fit the tables, if `end` is missing, or if a
    special word is in a tail cluster, whose vectors may be narrower.
    """
    tables = (x for name, x in params["embedding"].items() if name.startswith("table"))
    rows = sum(map(len, tables))
    if rows != len(words):
        raise UserError(f"--vocab has {len(words)} words; the weights have {rows}")
    shortlist = (*model["cutoffs"], len(words))[0]
    pad, _, _, begin = SPECIAL
    names = (pad, end, unknown, begin)
    special = [words.index(name) if name in words else -1 for name in names]
    if special[EOS] < 0:
        raise UserError(
            f"--end={end} is not in --vocab; give the word that ends a line"
        )
    for name, number in zip(names, special, strict=True):
        if number >= shortlist:
            raise UserError(
                f"{name!r} is word {number} of --vocab; it must be one of the "
                f"{shortlist} of the first cluster"
            )
    rest = [i for i in range(shortlist) if i not in special]
    order = np.array([*special, *rest])
    reordered = {
        part: params[part] | _reorder_rows(params[part], order)
        for part in ("embedding", "head")
    }
    vocabulary = [*SPECIAL, *(words[i] for i in rest), *words[shortlist:]]
    num_added = len(vocabulary) - len(words)
    cutoffs = tuple(cutoff + num_added for cutoff in model["cutoffs"])
    return {**model, "cutoffs": cutoffs}, {**params, **reordered}, vocabulary


def _reorder_rows(params: dict, order: np.ndarray) -> dict:
    """Reorders tables and biases of the first cluster; -1 stands for a new row."""
    new_row = {"table": 0.0, "bias": NEVER}
    changed = {}
    for name, rows in params.items():
        kind = name.removesuffix("_0")
        if kind in new_row:
            is_new = (order < 0).reshape(-1, *(1,) * (rows.ndim - 1))
            changed[name] = np.where(is_new, np.float32(new_row[kind]), rows[order])
    return changed


def check_is_new(workdir: str) -> RunDirectory:
    """Returns a new run directory. Raises UserError if it is not empty."""
    directory = RunDirectory(workdir)
    if directory.path.exists() and any(directory.path.iterdir()):
        raise UserError(f"--workdir={directory.path} is not empty; choose another")
    return directory


def write_run(
    workdir: str, cfg: ConfigDict, params: PyTree, words: list[str], origin: dict
) -> dict:
    """Writes a run directory as training does; returns the content of about.json.

    Args:
      words: vocabulary of `cfg.data.tokenizer`, special words first.
      origin: source of the weights, for about.json.

    Raises UserError for a directory that is not empty, an invalid config or corpus.
    """
    directory = check_is_new(workdir)
    validate.validate_config(cfg)
    tokenizer = KINDS[cfg.data.tokenizer](words)
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, {})
    if cfg.data.name:  # eval.py scores a run only on the corpus of these hashes
        dataset = open_dataset(cfg.data, {"text": tokenizer})
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
