"""Settings that a run takes over from the pre-trained encoder that it starts from.

They are what `from_pretrained` of Hugging Face takes from a folder: the model with its
sizes, and the tokenizer. `init_from` provides the parameters and the vocabulary.
"""

import sys
from typing import Any

from ml_collections import ConfigDict

from experiment.build import get_task_class
from experiment.restore import read_config
from training.run_dir import RunDirectory, flatten_config
from utils.errors import UserError

# Keys of `cfg.data` that describe a tokenizer.
TOKENIZER_KEYS = ("tokenizer", "vocab_size", "min_count", "lowercase", "moses_tokenize")
ENCODER, ENCODER_AND_POOLER = "^encoder/", "^(encoder|pooler)/"


def adopt_settings(
    cfg: ConfigDict, pretrained: str, workdir: str | None, given: dict[str, Any]
) -> None:
    """Changes a config as `pretrained_settings` says, and prints what it changes."""
    settings = pretrained_settings(cfg, pretrained, workdir, given)
    before = flatten_config(cfg.to_dict())
    cfg.update_from_flattened_dict(settings)
    changed = [f"{k}={v}" for k, v in settings.items() if before[k] != v]
    print(f"--pretrained sets {', '.join(changed) or 'nothing'}", file=sys.stderr)


def pretrained_settings(
    cfg: ConfigDict, pretrained: str, workdir: str | None, given: dict[str, Any]
) -> dict[str, Any]:
    """Returns the keys of a config that follow from the run that it starts from.

    They are all of `cfg.model`, those of the tokenizer, `init_from` and
    `init_params_pattern`. If the run has a pooler, which was trained to predict next
    sentences, `head.pooling` is "cls", which is that pooler (Devlin et al. 2019), but
    not with `head.compare_pair`, which pools each text.

    Args:
      cfg: the config of the new run.
      pretrained: run directory of the encoder.
      workdir: directory of the new run; None: it has none yet. A run that was started
        keeps its settings, so that resuming does not read `pretrained`.
      given: keys that the command line sets, which come first.

    Raises:
      UserError: there is no such run, or one of another architecture or kind of task.
    """
    if given.get("init_from", pretrained) != pretrained:
        raise UserError(
            f"--pretrained={pretrained} sets init_from, which is "
            f"{given['init_from']!r}: set one of them"
        )
    own = RunDirectory(workdir) if workdir else None
    is_started = own is not None and own.is_complete
    source = read_config(own if is_started else RunDirectory(pretrained))
    if source.model.name != cfg.model.name:
        if is_started:
            return {}  # train.py says that the directory has another run
        raise UserError(
            f"--pretrained={pretrained} has model.name={source.model.name!r}, and "
            f"--config has {cfg.model.name!r}: write --config=FILE:{source.model.name}"
        )
    for one in (source, cfg):
        if get_task_class(one.task).model_class != "Encoder":
            raise UserError(
                f"--pretrained={pretrained} is for tasks of encoders, not for "
                f"task={one.task!r}: set --config.init_from"
            )
    keys = [f"model.{key}" for key in source.model if key != "name"]
    if not cfg.data.vocabulary:
        keys += [f"data.{key}" for key in TOKENIZER_KEYS]
    values = flatten_config(source.to_dict())
    settings = {key: values[key] for key in keys} | {"init_from": pretrained}
    if is_started:
        kept = ("head.pooling", "init_params_pattern")
        settings |= {key: values[key] for key in kept}
    elif cfg.task != source.task:
        has_pooler = values["mlm.next_sentence"] and not cfg.head.compare_pair
        pooling = "cls" if has_pooler else cfg.head.pooling
        settings["head.pooling"] = pooling = given.get("head.pooling", pooling)
        takes_pooler = has_pooler and pooling == "cls"
        pattern = ENCODER_AND_POOLER if takes_pooler else ENCODER
        settings["init_params_pattern"] = pattern
    return settings | given
