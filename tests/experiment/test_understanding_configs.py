"""Configs of language understanding: every one can be built."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import base
from configs.recipes.understanding import SIZES
from data.registry import CORPORA, builder_class
from data.tokenizers.symbols import ListTokenizer
from data.understanding.labels import Labels
from data.understanding.markers import MARKERS
from experiment import build, setup, validate

ROOT = Path(__file__).parents[2]
FOLDERS = ("classification", "tagging", "relations", "pretraining")
CONFIGS = [
    f"{folder}.{path.stem}"
    for folder in FOLDERS
    for path in sorted((ROOT / "configs" / folder).glob("[!_]*.py"))
]


def load(name):
    return importlib.import_module(f"configs.{name}")


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
    tokenizers = {"text": ListTokenizer(["a", "b"]).with_tags(MARKERS)}
    tokenizers |= {"label": Labels("ab", (1, 1)), "tag": Labels(("O", "B-a"), (1, 1))}
    params = build.build_experiment(cfg, tokenizers).parameters()
    assert "encoder" in params
    assert setup.num_parameters(params) > 1000


@pytest.mark.parametrize("model", base.MODELS)
@pytest.mark.parametrize("size", SIZES)
def test_an_encoder_of_a_size_has_as_many_parameters_and_fits_a_classifier(model, size):
    words = ListTokenizer([f"w{i}" for i in range(8000)]).with_tags(MARKERS)
    tokenizers = {"text": words, "label": Labels("ab", (1, 1))}
    encoders = []
    for name in ("pretraining.wikitext2", "classification.trec"):
        cfg = load(name).get_config(f"{model}_{size}")
        validate.validate_config(cfg)
        params = build.build_experiment(cfg, tokenizers).parameters()
        encoders.append(jax.tree.map(jnp.shape, params["encoder"]))
    assert encoders[0] == encoders[1]
    millions = setup.num_parameters(params["encoder"]) / 1e6
    assert millions == pytest.approx(int(size.removesuffix("m")), rel=0.2)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_names_its_command_corpus_and_columns(name):
    path = name.replace(".", "/")
    assert f"python train.py --config=configs/{path}.py" in load(name).__doc__
    cfg = load(name).get_config()
    assert cfg.data.name in CORPORA
    required = getattr(builder_class(cfg.data.name), "COLUMNS", ())
    keys = ("text_column", "pair_column", "label_column", "tag_column")
    chosen = {cfg.data[key] for key in keys} - {None}
    assert not required or chosen <= {*required}


def test_every_named_corpus_has_a_config():
    configured = {name.partition(".")[2] for name in CONFIGS}
    own = {name for name, module in CORPORA.items() if ".understanding." in module}
    assert own <= configured
