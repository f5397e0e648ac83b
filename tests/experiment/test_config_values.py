"""Odd values of every config key: refused in one line that names the key, or meant."""

import functools
import math
from types import SimpleNamespace

import pytest

from configs import base
from experiment import validate
from experiment.setup import TrainingSetup
from training.run_dir import flatten_config
from utils.errors import UserError

INTS = (-(2**40), -1, 0, 2**31, 2**64)
FLOATS = (-math.inf, -1.0, 0.0, 1e39, math.inf, math.nan)
TEXTS = ("", " ", "None", "²", "(", "\0", "\udcff")
LARGEST = {"seed": 2**32 - 1, "data.seed": 2**32 - 1, "decode.seed": 2**32 - 1}
# -1 is all remaining devices; a length penalty may favour short hypotheses.
MAY_BE_NEGATIVE = {"parallel.data", "decode.length_penalty"}
FREE_TEXT = {
    *("init_from", "init_params_pattern", "optim.freeze", "optim.weight_decay_params"),
    *("data.name", "data.dir", "data.cache_dir", "data.source_dir", "data.vocabulary"),
    *(f"data.{name}_column" for name in ("text", "pair", "label", "tag")),
    *("data.source_column", "data.target_column", "track"),
}
KEYS = [
    (model, key)
    for model in base.MODELS
    for key in flatten_config(base.get_config(model).to_dict())
    if model == "transformer" or key.startswith("model.")
]


@functools.cache
def defaults(model):
    return base.get_config(model)


def section_and_name(cfg, key):
    section, _, name = key.rpartition(".")
    return (cfg[section] if section else cfg), name


def refusal(model, key, value):
    """Message of the refusal of a value, or None."""
    section, name = section_and_name(defaults(model), key)
    default = section[name]
    section[name] = value
    try:
        validate.validate_config(defaults(model))
    except UserError as error:
        return str(error)
    finally:
        section[name] = default
    return None


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_an_odd_value_is_refused_by_name_or_can_be_meant(model, key):
    section, name = section_and_name(defaults(model), key)
    kind = section.get_type(name)
    for value in {int: INTS, float: FLOATS, str: TEXTS}.get(kind, ()):
        told = refusal(model, key, value)
        if told is not None:
            assert key in told or (key.partition(".")[0] == "parallel" and name in told)
            assert "\n" not in told
        elif kind is str:
            assert key in FREE_TEXT
            assert value.isprintable()
        else:
            assert math.isfinite(value)
            assert value >= 0 or key in MAY_BE_NEGATIVE
            assert value <= LARGEST.get(key, 3e38 if kind is float else 2**31 - 1)


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_only_a_key_that_is_none_by_default_may_be_none(model, key):
    section, name = section_and_name(defaults(model), key)
    assert (refusal(model, key, None) is None) == (section[name] is None)


def test_more_steps_than_devices_can_count_are_refused():
    cfg = base.get_config()
    cfg.epochs = 1e9
    batches = SimpleNamespace(epoch_length=10)
    dataset = SimpleNamespace(train_batches=lambda: batches)
    with pytest.raises(UserError, match=r"epochs=1e\+09: steps=10000000000 must"):
        TrainingSetup.from_experiment(SimpleNamespace(cfg=cfg), dataset)


def test_a_finished_run_may_be_scored_by_other_metrics_than_it_kept_checkpoints_by():
    cfg = base.get_config("rnn")
    cfg.keep.metric, cfg.eval.metrics = "bleu", ("ter",)
    validate.check_values(cfg)
    with pytest.raises(UserError, match="'bleu'; choose one of ter"):
        validate.validate_config(cfg)
