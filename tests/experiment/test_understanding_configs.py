"""Configs of language understanding: every one can be built."""

import importlib
from pathlib import Path

import pytest

from configs import base
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


@pytest.mark.parametrize("model", base.MODELS)
@pytest.mark.parametrize("name", CONFIGS)
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
