"""What no config may say, found before anything is prepared or compiled."""

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
from training.parallel.partitioning import make_partitioner
from utils.errors import UserError


def check_config(cfg: ConfigDict) -> None:
    """Raises UserError for what cannot be, before anything is prepared."""
    validate_anywhere(cfg)
    make_partitioner(cfg.parallel)


def validate_anywhere(cfg: ConfigDict) -> None:
    """The same, but for the devices that are here, none of which is taken."""
    check_lengths(cfg)
    get_task_class(cfg.task)
    module = get_architecture(cfg.model.name)
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
    check_decode(cfg.decode)
    make_optimizer(cfg.optim, cfg.steps)
    check_patterns(cfg)


def validate_population(cfg: ConfigDict) -> None:
    """Raises UserError for what members of a population cannot have."""
    parallel = cfg.parallel
    if parallel.mode != "jit" or (parallel.fsdp, parallel.tensor) != (1, 1):
        raise UserError(
            f"parallel.mode={parallel.mode!r}, fsdp={parallel.fsdp}, tensor="
            f"{parallel.tensor}: each member of a population is on one device, with "
            "mode='jit', fsdp=1 and tensor=1"
        )
    if cfg.init_from:
        raise UserError(
            f"init_from={cfg.init_from!r}: a population begins with fresh parameters"
        )


def device_warnings(cfg: ConfigDict) -> list[str]:
    """Lines about what a config asks of another device than this."""
    kernel = cfg.model.get("attention_impl", "xla")
    if is_supported(kernel):
        return []
    return [
        f"model.attention_impl={kernel!r} is not made for this device: "
        "attention is computed by 'xla'"
    ]


def check_patterns(cfg: ConfigDict) -> None:
    """Raises UserError for what is no regular expression, or no known metric."""
    try:
        re.compile(cfg.init_params_pattern)
    except re.error as error:
        raise UserError(
            f"init_params_pattern={cfg.init_params_pattern!r}: {error}"
        ) from error
    better = get_task_class(cfg.task).metric_directions
    if cfg.keep.metric and cfg.keep.metric not in better:
        raise UserError(
            f"keep.metric={cfg.keep.metric!r}: {cfg.task} has {', '.join(better)}"
        )


def check_lengths(cfg: ConfigDict) -> None:
    """Raises UserError for sizes that cannot be."""
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
            least = f"it must be {low} or more"
            bounds = least if high == math.inf else f"it must be in {low} to {high}"
            raise UserError(f"{key}={value}: {bounds}")
    if not cfg.loss_fraction:
        raise UserError(
            "loss_fraction=0.0 leaves no token to train on; 1 is all of them"
        )
    if cfg.eval.window and not is_language_modeling(cfg):
        raise UserError(f"eval.window={cfg.eval.window}: only texts have windows")
    if cfg.data.document_order and is_language_modeling(cfg):
        raise UserError(
            "data.document_order=True is for translation; what a model of texts "
            "remembers goes from segment to segment anyway"
        )
    if cfg.eval.stride and not cfg.eval.window:
        raise UserError(
            f"eval.stride={cfg.eval.stride} moves a window: set eval.window too"
        )


def check_corpus(cfg: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError where a task does not fit the corpus."""
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
