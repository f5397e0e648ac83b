"""Tests that published weights are read and become parameters of our model."""

import functools
import pickle
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.import_transformer_xl.convert import convert
from analysis.weight_files import read_weights
from data.tokenizers.symbols import WordTokenizer
from experiment import build
from helpers.golden_transformer_xl import case
from helpers.original_weights import (
    WORDS,
    D,
    config,
    original,
    refusal,
    safetensors,
    without,
)


def assert_same(ours, theirs):
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_torch_state_dict_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    weights = original()
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    torch.save(tensors, tmp_path / "a.bin")
    assert_same(read_weights(tmp_path / "a.bin"), weights)
    torch.save({"args": Path("anything")}, tmp_path / "b.bin")
    assert "state dict" in refusal(read_weights, tmp_path / "b.bin")


def test_half_precision_is_read(tmp_path):
    weights = {"a": np.asarray([[1.5, -2.0], [0.25, 3.0]], np.float32)}
    safetensors(tmp_path / "a.safetensors", weights, "BF16")
    assert_same(read_weights(tmp_path / "a.safetensors"), weights)


SHARED = {  # what is tied, and a change that unties it
    (True, True): {},
    (True, False): {"crit.out_projs.1": 2},
    (False, False): {"crit.out_layers.0.weight": 2},
}


@pytest.mark.parametrize("name", ["transformer_xl", "transformer_xl_large"])
@pytest.mark.parametrize("tied", SHARED)
def test_converted_parameters_fit_the_model_for_all_ties(name, tied):
    ours = case(name, "fresh")
    weights = ours.golden.group("parameters")
    weights |= {key: by * weights[key] for key, by in SHARED[tied].items()}
    values, params = convert(weights, **ours.options)
    assert (values["tie_embeddings"], values["tie_projections"]) == tied
    assert_are_parameters(values, ours.sizes["vocab_size"], params)


def test_a_single_table_is_read_with_and_without_a_tied_head():
    weights = original()
    values, params = convert(weights)
    assert not values["tie_embeddings"]
    assert_are_parameters(values, len(WORDS), params)
    values, params = convert(without(weights, "crit.out_layers.0.weight"))
    assert values["tie_embeddings"]
    assert_are_parameters(values, len(WORDS), params)


def assert_are_parameters(values, size, params):
    cfg = config(values, size)
    tokenizer = WordTokenizer([f"w{i}" for i in range(size)])
    found = build.build_experiment(cfg, {"text": tokenizer})
    batch = {key: jnp.zeros((1, 2), jnp.int32) for key in ("tokens", "labels")}
    init = functools.partial(found.task.init, found.model)
    variables = jax.eval_shape(init, jax.random.key(0), batch)
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(variables)["params"])
    assert shapes == jax.tree.map(jnp.shape, params)


WRONG = {
    "a shape": (original(**{"layers.1.dec_attn.r_net.weight": (15, 11)}), "(15, 12)"),
    "a missing name": (without(original(), "r_r_bias"), "r_r_bias"),
    "a missing layer": (
        without(original(layers=3), "layers.1.pos_ff.CoreNet.0.bias"),
        "layers.1.pos_ff.CoreNet.0.bias",
    ),
    "an unknown name": ({**original(), "r_emb": np.ones((2, 3, 5))}, "r_emb"),
    "nothing": ({}, "the 0 of the file"),
    "tails without cutoffs": (
        {**original(), "crit.cluster_weight": np.ones((2, D), np.float32)},
        "2 tail clusters",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_weights_that_do_not_fit_give_an_error_of_one_line(what):
    weights, word = WRONG[what]
    assert word in refusal(convert, weights)


def broken_files(folder):
    """Returns invalid files, and a word that the error must contain."""
    objects = {"a": np.asarray([{}], object)}
    np.savez(folder / "objects.npz", **objects)
    (folder / "pickled.npz").write_bytes(pickle.dumps({"a": 1}))
    (folder / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "text.safetensors").write_bytes(b"no header at all")
    safetensors(folder / "whole.safetensors", {"a": np.ones(3)})
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-4])
    safetensors(folder / "odd.safetensors", {"a": np.ones(3)}, "I8")
    (folder / "weights.h5").write_bytes(b"")
    return {
        "objects.npz": "pickled",
        "pickled.npz": "pickled",
        "cut.npz": "npz",
        "text.safetensors": "safetensors",
        "cut.safetensors": "safetensors",
        "odd.safetensors": "I8",
        "weights.h5": ".safetensors, .npz",
    }


def test_invalid_files_give_an_error_of_one_line(tmp_path):
    for name, word in broken_files(tmp_path).items():
        assert word in refusal(read_weights, tmp_path / name), name
