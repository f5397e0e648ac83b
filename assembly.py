"""From a config to task and model, and what no config may say.

Half of the glue; the other half, `experiment.py`, runs what is put together here.
"""

import dataclasses
import difflib
import importlib
import math
import pkgutil
import typing
from typing import Any

from ml_collections import ConfigDict

import models
import tasks
from data.dataset import Dataset
from data.tokenizers import Tokenizer
from errors import UserError
from training.optimizers import make_optimizer
from training.partitioning import Partitioner


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config and its tokenizers determine."""

    cfg: ConfigDict
    task: Any
    model: Any
    tokenizers: dict[str, Tokenizer]

    @property
    def evaluation_model(self):
        """The model as `cfg.eval` changes it; its parameters are the same."""
        config = evaluation_config(self.model.config, self.cfg.eval)
        return self.model.clone(config=config)


def assemble(
    cfg: ConfigDict,
    tokenizers: dict[str, Tokenizer],
    languages: tuple[str, ...] = (),
) -> Experiment:
    """Task and model of a config.

    Raises UserError for a task or model that does not exist or does not fit.
    """
    task_class = find_module(tasks, cfg.task, "Task", "task").Task
    options = {"languages": languages} if languages else {}
    task = task_class(
        tokenizers,
        label_smoothing=cfg.label_smoothing,
        z_loss=cfg.z_loss,
        loss_share=cfg.loss_share,
        documents=cfg.data.documents,
        **options,
    )
    module = find_module(models, cfg.model.name, "Config", "model.name")
    model = task.make_model(module, model_config(module.Config, cfg.model))
    return Experiment(cfg, task, model, tokenizers)


def find_module(package, name: str, attribute: str, key: str):
    """The module `name` of a package, which must define `attribute`."""
    known = {}
    for module in pkgutil.iter_modules(package.__path__):
        found = importlib.import_module(f"{package.__name__}.{module.name}")
        if hasattr(found, attribute):
            known[module.name] = found
    if name not in known:
        raise UserError(f"{key}={name!r}: there are {', '.join(known)}")
    return known[name]


def model_config(schema: type, cfg: ConfigDict):
    """`cfg.model` as the dataclass that a model module calls Config.

    Raises UserError for a key that is unknown, missing or of another type, and
    for values the dataclass refuses.
    """
    hints = typing.get_type_hints(schema)
    types = {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    values = cfg.to_dict()
    for key, value in values.items():
        if key not in types:
            close = difflib.get_close_matches(key, types, 1) or list(types)
            raise UserError(f"model.{key}: no such key, did you mean {close[0]!r}?")
        wanted = types[key]
        if wanted is float and isinstance(value, int):
            values[key] = float(value)
        elif wanted is tuple and isinstance(value, list):
            values[key] = tuple(value)
        elif not isinstance(value, wanted) or isinstance(value, bool) != (
            wanted is bool
        ):
            raise UserError(f"model.{key}={value!r} is not of type {wanted.__name__}")
    missing = types.keys() - values.keys()
    if missing:
        raise UserError(f"model.{min(missing)} is not set")
    try:
        return schema(**values)
    except ValueError as error:
        raise UserError(str(error)) from error


def evaluation_config(config, options: ConfigDict):
    """A model's Config with the keys of `cfg.eval` that it has too.

    Raises UserError for what the model does not have or cannot have.
    """
    given = {
        "memory_length": options.memory_length,
        "same_length": options.same_length,
        "clamp_length": options.clamp_length,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    for key, value in asked.items():
        if not hasattr(config, key):
            raise UserError(f"eval.{key}={value}: a {config.name} has no such key")
    try:
        return dataclasses.replace(config, **asked)
    except ValueError as error:
        raise UserError(str(error).replace("model.", "eval.", 1)) from error


def check_config(cfg: ConfigDict) -> None:
    """Raises UserError for what cannot be, before anything is prepared."""
    check_lengths(cfg)
    find_module(tasks, cfg.task, "Task", "task")
    module = find_module(models, cfg.model.name, "Config", "model.name")
    config = model_config(module.Config, cfg.model)
    evaluation_config(config, cfg.eval)
    if cfg.label_smoothing and getattr(config, "cutoffs", ()):
        raise UserError(
            f"label_smoothing={cfg.label_smoothing}: an adaptive softmax "
            "(model.cutoffs) has none; set it to 0"
        )
    if cfg.z_loss and getattr(config, "cutoffs", ()):
        raise UserError(
            f"z_loss={cfg.z_loss}: an adaptive softmax (model.cutoffs) has no one "
            "normaliser; set it to 0"
        )
    make_optimizer(cfg.optim, cfg.steps)
    Partitioner(cfg.parallel)


def check_lengths(cfg: ConfigDict) -> None:
    """Raises UserError for sizes that cannot be."""
    positive = {
        "steps": cfg.steps,
        "data.batch_rows": cfg.data.batch_rows,
        "data.batch_tokens": cfg.data.batch_tokens,
        "data.segment_length": cfg.data.segment_length,
        "data.buckets": cfg.data.buckets,
        "data.max_length": cfg.data.max_length,
        "eval.batch_rows": cfg.eval.batch_rows,
        "decode.max_length": cfg.decode.max_length,
    }
    ranges = {
        "label_smoothing": (cfg.label_smoothing, 0, 1),
        "z_loss": (cfg.z_loss, 0, math.inf),
        "loss_share": (cfg.loss_share, 0, 1),
        "optim.warmup": (cfg.optim.warmup, 0, math.inf),
        "optim.clip": (cfg.optim.clip, 0, math.inf),
        "eval.segment_length": (cfg.eval.segment_length, 1, math.inf),
        "eval.memory_length": (cfg.eval.memory_length, 0, math.inf),
        "eval.clamp_length": (cfg.eval.clamp_length, 0, math.inf),
        "decode.length_factor": (cfg.decode.length_factor, 0, math.inf),
        **{key: (value, 1, math.inf) for key, value in positive.items()},
    }
    for key, (value, low, high) in ranges.items():
        if value is not None and not low <= value <= high:
            least = f"it must be {low} or more"
            bounds = least if high == math.inf else f"it must be in {low} to {high}"
            raise UserError(f"{key}={value}: {bounds}")


def check_corpus(cfg: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError where a task does not fit the corpus."""
    wanted = find_module(tasks, cfg.task, "Task", "task").Task.corpus_kind
    if dataset.corpus.kind != wanted:
        raise UserError(
            f"task={cfg.task!r} needs a corpus of kind {wanted!r}; "
            f"{cfg.data.name} is of kind {dataset.corpus.kind!r}"
        )
    for split in ("train", "validation"):
        if split not in dataset.corpus.splits:
            raise UserError(
                f"{cfg.data.name} has no split {split!r}, which training needs; "
                f"it has {', '.join(dataset.corpus.splits)}"
            )
