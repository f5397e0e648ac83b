"""Validation of a config, before anything is prepared or compiled.

`validate_config` makes every check. Ranges, and what fits what, are checked here;
a model's `Config`, `make_optimizer`, `check_decode` and `make_partitioner` check the
keys of their own section.
"""

import math
import operator
import re

from ml_collections import ConfigDict

from data.dataset import Dataset
from decoding.config import check_decode
from experiment.build import (
    evaluation_config,
    get_architecture,
    get_task_class,
    is_language_modeling,
    model_config,
)
from models.attention.dispatch import is_supported
from training.optim.optimizers import make_optimizer
from training.parallel.partitioner import make_partitioner
from utils.errors import UserError

# Keys by the range of their numbers.
FRACTIONS = ("label_smoothing", "loss_fraction", "optim.ema_decay")
NOT_NEGATIVE = (
    *("z_loss", "epochs", "keep.best", "keep.patience"),
    *("optim.warmup", "optim.clip_norm", "decode.max_length_ratio"),
    *("eval.attention_window", "eval.memory_length", "eval.clamp_length"),
)
POSITIVE = (
    *("steps", "grad_accum_steps", "max_nonfinite_steps", "keep.last"),
    *("data.batch_size", "data.tokens_per_batch", "data.segment_length"),
    *("data.buckets", "data.max_length", "data.vocab_size"),
    *("eval.batch_size", "eval.segment_length", "eval.window", "decode.max_length"),
    "decode.max_source_length",
)


def validate_config(cfg: ConfigDict, *, has_devices: bool = True) -> None:
    """Checks every key of a config.

    Args:
      has_devices: this process has the devices for `cfg.parallel`.

    Raises:
      UserError: a key has an impossible value, or keys do not fit each other.
    """
    check_values(cfg)
    module = get_architecture(cfg.model.name)
    config = model_config(module.Config, cfg.model)
    evaluation_config(config, cfg.eval)
    for key in ("label_smoothing", "z_loss"):
        if cfg[key] and getattr(config, "cutoffs", ()):
            raise UserError(
                f"{key}={cfg[key]}: an adaptive softmax (model.cutoffs) does not "
                "support it; set it to 0"
            )
    check_decode(cfg.decode)
    make_optimizer(cfg.optim, cfg.steps)
    if has_devices:
        make_partitioner(cfg.parallel)


def check_values(cfg: ConfigDict) -> None:
    """Checks ranges, patterns and combinations, for which no model is needed."""
    _check_ranges(cfg)
    task = get_task_class(cfg.task)
    if not cfg.loss_fraction:
        raise UserError("loss_fraction=0.0 leaves no token to train on; 1 trains all")
    if cfg.eval.window and not is_language_modeling(cfg):
        raise UserError(
            f"eval.window={cfg.eval.window} is for task='language_modeling' only"
        )
    if cfg.eval.stride and not cfg.eval.window:
        raise UserError(
            f"eval.stride={cfg.eval.stride} needs eval.window, the window that it moves"
        )
    if cfg.data.document_order and is_language_modeling(cfg):
        raise UserError(
            "data.document_order=True is for translation; language models carry "
            "their memory from segment to segment anyway"
        )
    try:
        re.compile(cfg.init_params_pattern)
    except re.error as error:
        raise UserError(
            f"init_params_pattern={cfg.init_params_pattern!r} is no regular "
            f"expression: {error}"
        ) from error
    metrics = task.metric_directions
    if cfg.keep.metric and cfg.keep.metric not in metrics:
        raise UserError(
            f"Unknown keep.metric {cfg.keep.metric!r}; choose one of "
            f"{', '.join(metrics)}"
        )


def _check_ranges(cfg: ConfigDict) -> None:
    """Checks numbers against their smallest and largest values; None is allowed."""
    ranges = {
        **dict.fromkeys(FRACTIONS, (0, 1)),
        **dict.fromkeys(NOT_NEGATIVE, (0, math.inf)),
        **dict.fromkeys(POSITIVE, (1, math.inf)),
        "eval.stride": (1, cfg.eval.window or math.inf),
    }
    for key, (low, high) in ranges.items():
        value = operator.attrgetter(key)(cfg)
        if value is not None and not low <= value <= high:
            bounds = f"{low} or more" if high == math.inf else f"in {low} to {high}"
            raise UserError(f"{key}={value}: it must be {bounds}")


def validate_population(cfg: ConfigDict) -> None:
    """Checks what trials that train as one program cannot have.

    Raises:
      UserError: a trial would need several devices or parameters of another run.
    """
    mode, fsdp, tensor = cfg.parallel.mode, cfg.parallel.fsdp, cfg.parallel.tensor
    if (mode, fsdp, tensor) != ("jit", 1, 1):
        raise UserError(
            f"parallel.{mode=}, {fsdp=}, {tensor=}: each trial of a population is on "
            "one device, with mode='jit', fsdp=1 and tensor=1"
        )
    if cfg.init_from:
        raise UserError(
            f"init_from={cfg.init_from!r}: the trials of a population start from "
            "random parameters"
        )


def check_corpus(cfg: ConfigDict, dataset: Dataset) -> None:
    """Checks that the corpus fits the task and has the splits for training.

    Raises:
      UserError: it does not.
    """
    wanted = get_task_class(cfg.task).corpus_kind
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


def device_warnings(cfg: ConfigDict) -> list[str]:
    """Returns a line for each key that has no effect on the devices of this process."""
    implementation = cfg.model.get("attention_impl", "xla")
    if is_supported(implementation):
        return []
    return [
        f"model.attention_impl={implementation!r} does not support this device: "
        "attention is computed by 'xla'"
    ]
