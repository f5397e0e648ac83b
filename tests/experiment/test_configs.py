"""Config files: every one can be built, and invalid values are refused."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from analysis.plan.step import parameter_shapes
from configs import base
from data.tokenizers.symbols import ListTokenizer
from experiment import build, setup, validate
from helpers.architectures import names
from models.registry import get_model_class
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = [
    ".".join(path.relative_to(ROOT / "configs").with_suffix("").parts)
    for folder in ("configs", "configs/characters")
    for path in sorted((ROOT / folder).glob("*.py"))
    if path.stem not in ("base", "__init__")
]
# Each config with its variants and one of the models is in make test.
PAIRS = [
    pytest.param(config, model, marks=[pytest.mark.slow] * ((i + k) % 3 > 0 and k < 3))
    for i, config in enumerate(CONFIGS)
    for k, model in enumerate(
        [
            *base.MODELS,
            *getattr(importlib.import_module(f"configs.{config}"), "VARIANTS", ()),
        ]
    )
]


@pytest.mark.parametrize(
    "name",
    [
        *("parallel_text", "plain_text", "pairs.text_pairs"),
        *("classification.labeled_text", "tagging.tagged_text"),
    ],
)
def test_the_warm_up_follows_the_steps_of_the_command_line(name):
    cfg = importlib.import_module(f"configs.{name}").get_config("transformer")
    ratio = cfg.steps // cfg.optim.warmup
    cfg.update_from_flattened_dict({"steps": 400})
    assert cfg.optim.warmup == 400 // ratio
    cfg.update_from_flattened_dict({"optim.warmup": 7})
    assert (cfg.steps, cfg.optim.warmup) == (400, 7)


def vocabulary(size):
    return ListTokenizer([str(i) for i in range(size)])


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_every_config_builds_its_model(name, model):
    cfg = importlib.import_module(f"configs.{name}").get_config(model)
    assert cfg.is_locked
    validate.validate_config(cfg)
    # Layers are alike; test_published_configs.py builds all of the deepest models.
    cfg.model.layers = min(cfg.model.layers, 2)
    params = parameter_shapes(cfg)
    assert setup.num_parameters(params) > 1000


@pytest.mark.parametrize("name", names())
def test_the_base_config_and_the_schema_of_a_model_have_the_same_keys(name):
    schema = get_model_class(name, "Config")
    assert {f.name for f in dataclasses.fields(schema)} == {"name", *base.MODELS[name]}
    build.model_config(schema, base.model(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_docstring_of_a_config_has_the_command_to_run_it(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    assert f"python train.py --config=configs/{name.replace('.', '/')}.py" in text


def test_every_key_of_the_base_config_is_read_by_code():
    folders = {path.parent for path in ROOT.glob("[!.]*/*.py")}
    read_by = folders - {ROOT / "tests", ROOT / "configs"}
    files = [
        *ROOT.glob("*.py"),
        *(f for folder in read_by for f in folder.rglob("*.py")),
    ]
    files.remove(ROOT / "experiment/validate.py")  # checks values, and uses none
    # Names after points and names in quotes, each once.
    words = re.compile(r'"\w+"|\w+(?:\.\w+)+')
    code = " ".join(
        {word for f in files for word in words.findall(f.read_text("utf8"))}
    )
    cfg = base.get_config()
    sections = {"cfg": cfg} | {name: cfg[name] for name in cfg if named(cfg[name])}
    del sections["model"]
    unread = {
        f"{section}.{key}"
        for section, keys in sections.items()
        for key in keys
        # As an attribute of a config, or named in a table of keys to copy.
        if not re.search(
            rf'(cfg|options|config|decoding)(\.\w+)?\.{key}\b|\b{section}\.{key}\b|"{key}"',
            code,
        )
    }
    assert not unread


def named(section):
    return list(section.keys()) if hasattr(section, "keys") else []


def test_a_misspelt_key_is_refused_with_the_right_one():
    cfg = base.get_config()
    with pytest.raises(AttributeError, match="Did you mean"):
        cfg.model.dropuot = 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 100, "heads": 3}, "model.width=100"),
        ({"norm": "sideways"}, "Unknown model.norm 'sideways'; choose one of"),
        ({"dropout": "much"}, "model.dropout"),
        ({"dropout": 1.5}, "model.dropout=1.5"),
        ({"heads": 0}, "model.heads=0"),
        ({"layers": 0}, "model.layers=0"),
    ],
)
def test_invalid_values_of_a_model_are_named(change, message):
    cfg = base.model("transformer").unlock()
    with cfg.ignore_type():
        cfg.update(change)
    schema = get_model_class("transformer", "Config")
    with pytest.raises(UserError, match=message):
        build.model_config(schema, cfg)


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 1.5},
        {"z_loss": -0.1},
        {"optim.warmup": -5},
        {"eval.memory_length": -1},
        {"eval.attention_window": -1},
        {"eval.segment_length": -4},
        {"decode.max_length_ratio": -1.0},
        {"data.batch_size": 0},
    ],
)
def test_invalid_numbers_are_refused(change):
    cfg = base.get_config()
    cfg.update_from_flattened_dict(change)
    [(key, value)] = change.items()
    with pytest.raises(UserError, match=f"{key}={value}"):
        validate.validate_config(cfg)


def test_an_unknown_model_or_task_is_refused_with_the_known_ones():
    cfg = base.get_config()
    cfg.model.name = "lstmm"
    with pytest.raises(UserError, match="transformer_xl"):
        build.build_experiment(cfg, dict.fromkeys(("source", "target"), vocabulary(9)))
    cfg = base.get_config()
    cfg.task = "translating"
    with pytest.raises(UserError, match="language_modeling, translation"):
        build.build_experiment(cfg, {})


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("transformer", {"eval.memory_length": 9}, "eval.memory_length=9: a transf"),
        ("rnn", {"eval.same_length": True}, "eval.same_length=True: a rnn"),
        ("rnn", {"eval.memory_length": 9}, "eval.memory_length=9: a rnn"),
        (
            "transformer_xl",
            {"model.position_encoding": "learned", "model.memory_length": 0}
            | {"eval.memory_length": 5},
            "eval.memory_length=5 needs relative positions",
        ),
        (
            "transformer",
            {"model.cutoffs": (5,), "label_smoothing": 0.1},
            "label_smoothing=0.1: an adaptive softmax",
        ),
        (
            "transformer",
            {"model.cutoffs": (5,), "z_loss": 0.1},
            "z_loss=0.1: an adaptive softmax",
        ),
        (
            "rnn",
            {"model.dtype": "half"},
            "Unknown model.dtype 'half'; choose one of",
        ),
        ("rnn", {"model.dtype": "float64"}, "needs JAX_ENABLE_X64=1"),
        (
            "rnn",
            {"grad_accum_steps": 33, "data.tokens_per_batch": 32},
            "grad_accum_steps=33 must be at most data.tokens_per_batch=32",
        ),
        ("rnn", {"data.tokenizer": "words"}, "Unknown data.tokenizer 'words'; choose"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(model, change, message):
    cfg = base.get_config(model)
    cfg.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        validate.validate_config(cfg)
