"""Validation of a config, before anything is prepared or compiled.

`validate_config` makes every check. Ranges, and what fits what, are checked here;
a model's `Config`, `make_optimizer`, `check_decode` and `make_partitioner` check the
keys of their own section.
"""

import math
import re

import jax
from ml_collections import ConfigDict

from configs import base
from data.dataset import Dataset
from data.tokenizers.build import KINDS
from decoding.config import RANGES as DECODE_RANGES
from decoding.config import check_decode
from experiment.build import evaluation_config, get_task_class, model_config
from models.attention.dispatch import is_supported
from models.registry import get_model_class
from training.optim.optimizers import RANGES as OPTIM_RANGES
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import check_pattern
from training.parallel.partitioner import make_partitioner
from training.run_dir import flatten_config
from training.trackers.registry import TRACKERS, check_tracker
from utils.errors import UserError
from utils.ranges import BELOW_ONE, check_range

NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and bytes that are not UTF-8
NOT_NEGATIVE = (
    *("z_loss", "epochs", "keep.best", "keep.patience", "decode.max_length_ratio"),
    *("every.log", "every.eval", "every.checkpoint", "every.checkpoint_minutes"),
    *("every.watch", "every.fingerprint"),
    *("data.min_count", "data.min_length", "data.max_ratio"),
)
POSITIVE = (
    *("steps", "grad_accum_steps", "max_nonfinite_steps", "max_skips", "keep.last"),
    *("data.max_length", "data.vocab_size", "data.buckets"),
    *("decode.max_length", "decode.max_source_length"),
)
MAX_SIZE = 2**20  # of an axis of an array
SIZES = (
    *("data.batch_size", "data.segment_length", "data.bpe_dropout_copies"),
    *("eval.batch_size", "eval.segment_length", "eval.window", "eval.stride"),
)
EVAL_LENGTHS = ("eval.attention_window", "eval.memory_length", "eval.clamp_length")
MESH = ("parallel.data", "parallel.fsdp", "parallel.tensor")
RANGES = {  # of numeric keys; `models.api.ModelConfig` has lower ends of model keys
    **dict.fromkeys(NOT_NEGATIVE, (0, math.inf)),
    **dict.fromkeys(POSITIVE, (1, math.inf)),
    **dict.fromkeys(SIZES, (1, MAX_SIZE)),
    **dict.fromkeys(EVAL_LENGTHS, (0, MAX_SIZE)),
    **dict.fromkeys(MESH, (-1, MAX_SIZE)),
    **dict.fromkeys(("label_smoothing", "loss_fraction"), (0, 1)),
    **dict.fromkeys(("seed", "data.seed"), (0, 2**32 - 1)),
    "stall_minutes": (1e-3, math.inf),
    "data.tokens_per_batch": (1, 2**24),
    "spike_threshold": (1, math.inf),
    "data.bpe_dropout": (0, BELOW_ONE),
    "model.layers": (1, 10_000),
    **dict.fromkeys(("mlm.probability", "mlm.short_fraction"), (0, 1)),
    "head.dropout": (0, BELOW_ONE),
    **{f"optim.{key}": bounds for key, bounds in OPTIM_RANGES.items()},
    **{f"decode.{key}": bounds for key, bounds in DECODE_RANGES.items()},
}

CHOICES = {  # of keys that name one of a few
    "on_spike": ("off", "keep", "skip", "stop"),
    "track": ("", *TRACKERS),
    "on_stall": ("off", "report", "stop"),
    "data.tokenizer": tuple(KINDS),
    "data.unseen_labels": ("error", "count"),
    "head.pooling": ("cls", "mean", "max", "attention"),
    "head.class_weights": ("none", "balanced"),
}


def validate_config(cfg: ConfigDict, *, has_devices: bool = True) -> None:
    """Checks every key of a config.

    Args:
      has_devices: this process has the devices for `cfg.parallel`.

    Raises:
      UserError: a key has an impossible value, or keys do not fit each other.
    """
    check_values(cfg)
    check_kept_metric(cfg)
    task = get_task_class(cfg.task)
    by_rows = task.model_class != "Seq2Seq" or cfg.data.document_order
    size = "batch_size" if by_rows else "tokens_per_batch"
    if cfg.grad_accum_steps > cfg.data[size]:
        raise UserError(
            f"grad_accum_steps={cfg.grad_accum_steps} must be at most "
            f"data.{size}={cfg.data[size]}"
        )
    config = model_config(get_model_class(cfg.model.name, "Config"), cfg.model)
    evaluation_config(config, cfg.eval)
    if config.dtype == "float64" and not jax.config.jax_enable_x64:
        raise UserError("model.dtype='float64' needs JAX_ENABLE_X64=1 to be set")
    for key in ("label_smoothing", "z_loss"):
        if cfg[key] and getattr(config, "cutoffs", ()):
            raise UserError(
                f"{key}={cfg[key]}: an adaptive softmax (model.cutoffs) does not "
                "support it; set it to 0"
            )
    if task.generates_text:
        check_decode(cfg.decode)
    make_optimizer(cfg.optim, cfg.steps)
    check_tracker(cfg.track)
    if has_devices:
        make_partitioner(cfg.parallel)


def check_values(cfg: ConfigDict) -> None:
    """Checks ranges, patterns and combinations, for which no model is needed."""
    check_keys(cfg)
    task = get_task_class(cfg.task)
    if not cfg.loss_fraction:
        raise UserError("loss_fraction=0.0 leaves no token to train on; 1 trains all")
    if cfg.eval.window and task.model_class != "LanguageModel":
        raise UserError(
            f"eval.window={cfg.eval.window} is for task='language_modeling' only"
        )
    if cfg.eval.metrics and task.model_class != "Seq2Seq":
        raise UserError(
            f"eval.metrics={cfg.eval.metrics} is for task='text_to_text' and "
            "'translation' only"
        )
    for key in ("source_column", "target_column"):
        if cfg.data[key] and cfg.task in ("language_modeling", "translation"):
            raise UserError(
                f"data.{key}={cfg.data[key]!r} is for task='text_to_text' only, not "
                f"{cfg.task!r}"
            )
    if cfg.eval.stride and not cfg.eval.window:
        raise UserError(
            f"eval.stride={cfg.eval.stride} needs eval.window, the window that it moves"
        )
    check_range("eval.stride", cfg.eval.stride or 1, 1, cfg.eval.window or math.inf)
    task.check_config(cfg)
    check_pattern("init_params_pattern", cfg.init_params_pattern)


def check_kept_metric(cfg: ConfigDict) -> None:
    """Raises UserError if training cannot choose checkpoints by `keep.metric`.

    It is apart from `check_values`, since a finished run may be scored by other metrics
    than those by which it was trained.
    """
    metrics = get_task_class(cfg.task).directions(cfg)
    if cfg.keep.metric is not None and cfg.keep.metric not in metrics:
        raise UserError(
            f"Unknown keep.metric {cfg.keep.metric!r}; choose one of "
            f"{', '.join(metrics)}"
        )


def check_keys(cfg: ConfigDict) -> None:
    """Checks the value of each key by itself.

    Raises:
      UserError: a number is out of range, a text cannot be encoded, or a key that must
        have a value is None.
    """
    get_model_class(cfg.model.name, "Config")  # refuses an unknown name
    defaults = flatten_config(base.get_config(cfg.model.name).to_dict())
    for key, value in flatten_config(cfg.to_dict()).items():
        if value is None and defaults.get(key) is not None:
            raise UserError(f"{key}=None must have a value; see configs/base.py")
        if isinstance(value, int | float):
            default = (0, MAX_SIZE) if key.startswith("model.") else ()
            check_range(key, value, *RANGES.get(key, default))
        if value not in CHOICES.get(key, (value,)):
            raise UserError(
                f"Unknown {key} {value!r}; choose one of {', '.join(CHOICES[key])}"
            )
        if isinstance(value, str) and NO_TEXT.search(value):
            raise UserError(f"{key}={value!r} must be text that UTF-8 can encode")


def check_corpus(cfg: ConfigDict, dataset: Dataset) -> None:
    """Checks that the corpus fits the task and has the splits for training.

    Raises:
      UserError: it does not.
    """
    wanted = get_task_class(cfg.task).corpus_kind
    if wanted and dataset.corpus.kind != wanted:
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
