"""Start of training from the parameters of another run (`init_from`)."""

import dataclasses
import re
import sys

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.dataset import Dataset
from data.tokenizers.base import Tokenizer
from experiment.build import get_task_class, open_dataset
from experiment.restore import TrainedRun, open_run
from experiment.setup import num_parameters
from training.optim.param_groups import is_match, map_named, named_leaves
from training.parallel.distributed import is_primary
from training.step import TrainState
from utils.errors import UserError

LABEL_SIDES = ("label", "tag")
# Whether the rows of a parameter belong to tokens, or to labels.
TOKEN_PARAMS = re.compile(r"(^|/)((source|target)_)?embedding/").search
LABEL_PARAMS = re.compile(r"^(intent_)?head/|^crf/").search

MAX_WRONG = 3  # parameters named in an error
MAX_NEW = 6  # new parameters that are named


@dataclasses.dataclass(frozen=True)
class InitialRun:
    """A trained run, whose parameters and vocabularies a new run starts from.

    Attributes:
      cfg: the config of the new run.
    """

    cfg: ConfigDict
    run: TrainedRun

    @classmethod
    def open(cls, cfg: ConfigDict) -> "InitialRun":
        """Opens the run `cfg.init_from`."""
        return cls(cfg, open_run(cfg.init_from))

    def open_dataset(self) -> Dataset:
        """Opens the new run's dataset, with these vocabularies or `data.vocabulary`.

        Raises:
          UserError: they do not fit the config, or parameters belong to others.
        """
        cfg, tokenizers = self.cfg, self.run.experiment.tokenizers
        sides = get_task_class(cfg.task).sides
        if not (cfg.data.vocabulary or set(sides) <= set(tokenizers)):
            raise UserError(
                f"init_from={cfg.init_from!r} has vocabularies for "
                f"{', '.join(tokenizers)}, and task={cfg.task!r} needs others: set "
                "data.vocabulary"
            )
        same = {} if cfg.data.vocabulary else {side: tokenizers[side] for side in sides}
        for tokenizer in same.values():
            check_tokenizer(tokenizer, cfg)
        dataset = open_dataset(cfg, same or None)
        check_vocabularies(self.run, dataset.tokenizers, cfg.init_params_pattern)
        return dataset

    def init_state(self, state: TrainState) -> TrainState:
        """Returns the first state with the parameters of this run."""
        cfg, source = self.cfg, self.run.variables["params"]
        params = init_from_params(state.params, source, cfg.init_params_pattern)
        if is_primary():
            print(describe_init(params, cfg), file=sys.stderr)
        ema = jax.tree.map(jnp.copy, params) if cfg.optim.ema_decay else ()
        return state.replace(params=params, ema=ema)


def describe_init(params: PyTree, cfg: ConfigDict) -> str:
    """Returns a line on which parameters `init_from` provided and which are new."""
    leaves = named_leaves(params)
    taken = [name for name in leaves if is_match(cfg.init_params_pattern, name)]
    new = [name for name in leaves if name not in taken]
    numbers = sum(leaves[name].size for name in taken)
    shown = ", ".join(new[:MAX_NEW]) + (", ..." if len(new) > MAX_NEW else "")
    return (
        f"init_from={cfg.init_from}: took {len(taken)} of {len(leaves)} parameters "
        f"({numbers:,} of {num_parameters(params):,} numbers); new: {shown or 'none'}"
    )


def check_tokenizer(tokenizer: Tokenizer, cfg: ConfigDict) -> None:
    """Raises UserError unless the config describes the tokenizer of `init_from`."""
    normalizer = tokenizer.normalizer
    used = {"tokenizer": tokenizer.kind, "lowercase": normalizer.lowercase}
    for key, value in used.items():
        if cfg.data[key] != value:
            raise UserError(
                f"data.{key}={cfg.data[key]!r}, but the vocabulary of "
                f"init_from={cfg.init_from!r} has {key}={value!r}: set "
                f"data.{key}={value}, or data.vocabulary for another vocabulary"
            )


def check_vocabularies(
    origin: TrainedRun, tokenizers: dict[str, Tokenizer], pattern: str
) -> None:
    """Raises UserError where parameters of other tokens or labels would be taken.

    Args:
      origin: the run of `init_from`.
      tokenizers: those of the new run.
      pattern: `init_params_pattern`.
    """
    names = [
        n for n in named_leaves(origin.variables["params"]) if is_match(pattern, n)
    ]
    for side, before in origin.experiment.tokenizers.items():
        now, is_label = tokenizers.get(side), side in LABEL_SIDES
        if now is None:
            continue
        same = now.names == before.names if is_label else now.shares_vocabulary(before)
        kept = [n for n in names if (LABEL_PARAMS if is_label else TOKEN_PARAMS)(n)]
        if kept and not same:
            unit = "labels" if is_label else "tokens"
            raise UserError(
                f"init_from={origin.directory.path}: its {side} vocabulary of "
                f"{before.vocab_size} {unit} is not that of this run, which has "
                f"{now.vocab_size}, and {kept[0]} belongs to it: leave it out of "
                f"init_params_pattern={pattern!r}"
                + ("" if is_label else ", or unset data.vocabulary")
            )


def init_from_params(params: PyTree, source: PyTree, pattern: str) -> PyTree:
    """Returns `params` with those whose names match replaced by `source`'s.

    Args:
      source: parameters of another run.
      pattern: a regular expression, searched for in the names of parameters.

    Raises:
      UserError: a matching parameter is missing in `source` or has another shape
        there, or no name matches.
    """
    by_name = named_leaves(source)
    taken, wrong = [], []

    def choose(name, leaf):
        if not is_match(pattern, name):
            return leaf
        other = by_name.get(name)
        if other is None or other.shape != leaf.shape:
            shape = "missing" if other is None else f"of shape {other.shape}"
            wrong.append(f"{name} {leaf.shape} is {shape} there")
            return leaf
        taken.append(name)
        return jax.device_put(other, leaf.sharding)

    chosen = map_named(choose, params)
    if wrong:
        more = f" and {len(wrong) - MAX_WRONG} more" if len(wrong) > MAX_WRONG else ""
        suits = "encoder" in params and not any(n.startswith("encoder/") for n in wrong)
        hint = "; '^encoder/' takes the encoder alone" if suits else ""
        raise UserError(
            f"init_from: {'; '.join(wrong[:MAX_WRONG])}{more}: leave them out of "
            f"init_params_pattern={pattern!r}{hint}"
        )
    if not taken:
        raise UserError(f"init_params_pattern={pattern!r} matches no parameter")
    return chosen
