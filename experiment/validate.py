"""Validation of a config, before anything is prepared or compiled.

`validate_config` makes every check. Ranges, and what fits what, are checked here;
a model's `Config`, `make_optimizer`, `check_decode` and `make_partitioner` check the
keys of their own section.
"""

import math
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
    positive = {
        "steps": cfg.steps,
        "grad_accum_steps": cfg.grad_accum_steps,
        "max_nonfinite_steps": cfg.max_nonfinite_steps,
        "keep.last": cfg.keep.last,
        "data.batch_size": cfg.data.batch_size,
        "data.tokens_per_batch": cfg.data.tokens_per_batch,
        "data.segment_length": cfg.data.segment_length,
        "data.buckets": cfg.data.buckets,
        "data.max_length": cfg.data.max_length,
        "data.vocab_size": cfg.data.vocab_size,
        "eval.batch_size": cfg.eval.batch_size,
        "decode.max_length": cfg.decode.max_length,
    }
    ranges = {
        "label_smoothing": (cfg.label_smoothing, 0, 1),
        "z_loss": (cfg.z_loss, 0, math.inf),
        "loss_fraction": (cfg.loss_fraction, 0, 1),
        "epochs": (cfg.epochs, 0, math.inf),
        "keep.best": (cfg.keep.best, 0, math.inf),
        "keep.patience": (cfg.keep.patience, 0, math.inf),
        "optim.ema_decay": (cfg.optim.ema_decay, 0, 1),
        "optim.warmup": (cfg.optim.warmup, 0, math.inf),
        "optim.clip_norm": (cfg.optim.clip_norm, 0, math.inf),
        "eval.segment_length": (cfg.eval.segment_length, 1, math.inf),
        "eval.window": (cfg.eval.window, 1, math.inf),
        "eval.stride": (cfg.eval.stride, 1, cfg.eval.window or math.inf),
        "eval.attention_window": (cfg.eval.attention_window, 0, math.inf),
        "eval.memory_length": (cfg.eval.memory_length, 0, math.inf),
        "eval.clamp_length": (cfg.eval.clamp_length, 0, math.inf),
        "decode.max_length_ratio": (cfg.decode.max_length_ratio, 0, math.inf),
        **{key: (value, 1, math.inf) for key, value in positive.items()},
    }
    for key, (value, low, high) in ranges.items():
        if value is not None and not low <= value <= high:
            bounds = f"{low} or more" if high == math.inf else f"in {low} to {high}"
            raise UserError(f"{key}={value}: it must be {bounds}")


def validate_population(cfg: ConfigDict) -> None:
    """Checks what trials that train as one program cannot have.

    Raises:
      UserError: a trial would need several devices or parameters of another run.
    """
    parallel = cfg.parallel
    if parallel.mode != "jit" or (parallel.fsdp, parallel.tensor) != (1, 1):
        raise UserError(
            f"parallel.mode={parallel.mode!r}, fsdp={parallel.fsdp}, tensor="
            f"{parallel.tensor}: each trial of a population is on one device, with "
            "mode='jit', fsdp=1 and tensor=1"
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
