"""Configs of text pairs: every one can be built, and fits its corpus."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from configs import base
from data.registry import CORPORA, builder_class
from data.tokenizers.symbols import ListTokenizer
from experiment import build, setup, validate
from tasks.text_metrics.registry import METRICS
from tasks.translation_inference import output_limits

ROOT = Path(__file__).parents[2]
CONFIGS = [path.stem for path in sorted((ROOT / "configs/pairs").glob("[!_]*.py"))]


def load(name):
    return importlib.import_module(f"configs.pairs.{name}")


# Each config with one of the models, and each model with a third of the configs.
BUILT = [
    pytest.param(name, model, marks=[pytest.mark.slow] * ((i + k) % 3 > 0))
    for i, name in enumerate(CONFIGS)
    for k, model in enumerate(base.MODELS)
]


@pytest.mark.parametrize(("name", "model"), BUILT)
def test_every_config_builds_its_model(name, model):
    cfg = load(name).get_config(model)
    assert cfg.is_locked
    assert cfg.model.name == model
    validate.validate_config(cfg)
    words = ListTokenizer([f"w{i}" for i in range(50)])
    experiment = build.build_experiment(cfg, {"source": words, "target": words})
    assert setup.num_parameters(experiment.parameters()) > 1000
    metric = setup.selection_metric(cfg, experiment.task)
    assert experiment.task.directions(cfg)[metric] == "max"


def test_the_length_of_an_output_does_not_depend_on_its_source():
    """A response to one word may be a sentence; translations are bounded."""
    decode = load("dstc2").get_config().decode
    assert output_limits(decode, np.asarray([2, 300])).tolist() == [64, 64]
    decode = base.get_config().decode
    assert output_limits(decode, np.asarray([2, 3, 300])).tolist() == [14, 16, 128]
    decode.max_length_ratio = 1.5
    assert output_limits(decode, 3) == 14


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_names_its_command_and_its_corpus_has_the_columns(name):
    assert f"python train.py --config=configs/pairs/{name}.py" in load(name).__doc__
    cfg = load(name).get_config()
    corpus = cfg.data.name.partition("/")[0]
    assert corpus in CORPORA
    if columns := getattr(builder_class(corpus), "COLUMNS", ()):
        needed = [c for m in cfg.eval.metrics for c in METRICS[m].columns]
        assert {cfg.data.source_column, cfg.data.target_column, *needed} <= {*columns}
