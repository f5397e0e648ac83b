"""Tests of the attention map of a sample, of small untrained models."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.attention import extract, render
from analysis.attention.extract import (
    SampleMap,
    choose_sample,
    cross_attention,
    sample_map,
)
from configs import base
from data.tokenizers.symbols import ByteTokenizer, WordTokenizer
from experiment.build import Experiment
from experiment.restore import TrainedRun
from helpers.architectures import V, W, names, only, small_config
from models.registry import get_model_class
from training.run_dir import RunDirectory

SIGNS = ["<pad>", "<eos>", "<unk>", "<bos>"]
WORDS = ["a", "b", "$c$", "日本", "<d>", "c"]
SOURCE = WordTokenizer([*SIGNS, *WORDS, *(f"s{i}" for i in range(W - 10))])
TARGET = WordTokenizer([*SIGNS, *WORDS, *(f"t{i}" for i in range(V - 10))])


@functools.cache
def random_model(name):
    """A small Seq2Seq with random parameters, without compiling its initialisation."""
    model_class = get_model_class(name, "Seq2Seq")
    model = model_class(small_config(name), W, V, shared_vocab=False)
    carry = model.initial_carry(1, train=False, memory_length=0)
    tokens, mask = jnp.ones((1, 2), int), jnp.ones((1, 2), bool)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), tokens, mask, tokens, mask, carry)
    noise = np.random.default_rng(0)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0  # a norm's gain
        return jnp.asarray(mean + 0.4 * noise.normal(size=leaf.shape), leaf.dtype)

    return model, jax.tree_util.tree_map_with_path(draw, nn.meta.unbox(shapes))


class FakeTask:
    """The part of a translation task that a map needs."""

    model_class = "Seq2Seq"
    source, target = SOURCE, TARGET

    def initial_carry(self, model, rows, *, train):
        return model.initial_carry(rows, train=train, memory_length=0)


class TextTask(FakeTask):
    model_class = "LanguageModel"


def sample(source, hypothesis, reference="a"):
    return {"source": source, "reference": reference, "hypothesis": hypothesis}


def trained(path, name="rnn", samples=(), task=FakeTask):
    """A run that was just evaluated at step 7."""
    cfg = base.get_config(name)
    model, variables = random_model(name)
    experiment = Experiment(cfg, task(), model, {})
    run = TrainedRun(RunDirectory(path), experiment, variables, (7,))
    run.directory.write_lines("samples/test-7.jsonl", list(samples))
    return run


def test_a_long_source_is_cut_as_for_its_translation(tmp_path):
    run = trained(tmp_path)
    run.experiment.cfg.data.max_length = 3
    assert sample_map(run, sample("a b c c", "a")).source == ["a", "b", "<eos>"]


def num_layers(found):
    return 1 if found.layer == "decoder" else 2


@pytest.mark.parametrize("name", only("rnn", "transformer"))
def test_each_row_of_weights_is_a_distribution_over_the_source(name, tmp_path):
    run = trained(tmp_path, name)
    found = sample_map(run, sample("a s1", "a t1 b"))
    assert found.source == ["a", "s1", "<eos>"]
    assert found.target == ["a", "t1", "b", "<eos>"]
    weights = np.asarray(found.weights)
    assert weights.shape == (4, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=5e-4)  # four digits
    assert weights.std() > 1e-3
    assert found.layers == num_layers(found)
    assert "decoder" in found.layer


@pytest.mark.parametrize("name", only("transformer"))
def test_the_length_of_the_target_changes_no_row(name, tmp_path):
    run = trained(tmp_path, name)
    weights_of = functools.partial(cross_attention, run, [4, 5, 6])
    long, same = weights_of([7, 8, 9, 1]), weights_of([7, 8, 9])
    assert long.keys() == same.keys()
    for layer, weights in same.items():
        np.testing.assert_allclose(weights, long[layer][..., :3, :], atol=1e-5)


@pytest.mark.parametrize("name", names())
def test_a_row_depends_only_on_the_tokens_above_it(name, tmp_path):
    run = trained(tmp_path, name)
    weights_of = functools.partial(cross_attention, run, [4, 5, 1])
    changed = weights_of([8, 4, 10, 1])
    for layer, weights in weights_of([8, 9, 10, 1]).items():
        change = np.abs(weights - changed[layer]).max(axis=-1)
        assert change[..., :2].max() < 1e-6
        assert change[..., 3].max() > 1e-5


def test_the_sharpest_layer_is_shown(tmp_path):
    run = trained(tmp_path, "transformer")
    layers = cross_attention(run, [4, 5, 1], [7, 8, 9, 1])
    spread = {
        name: extract.entropy(weights.reshape(-1, 4, 3).mean(axis=0))
        for name, weights in layers.items()
    }
    found = sample_map(run, sample("a b", "日本 <d> $c$"))
    assert len(set(spread.values())) == 2
    assert found.layer in spread
    assert found.layers == 2
    assert found.heads == 3


def test_entropy_is_low_for_sharp_attention():
    assert extract.entropy(np.eye(4)) == 0.0
    assert extract.entropy(np.full((2, 4), 0.25)) == pytest.approx(np.log(4))


def test_the_first_sentence_of_moderate_length_is_taken(tmp_path):
    run = trained(tmp_path)
    samples = [sample(f"{n}", "a", "a " * n) for n in (1, 40, 5, 13, 6)]
    choose = functools.partial(choose_sample, run)
    assert choose(samples)["source"] == "5"  # and the end: six
    assert choose(samples[3:])["source"] == "13"
    assert choose(samples[:2])["source"] == "1"
    assert choose([samples[1], sample("60", "a", "a " * 60)])["source"] == "40"


def test_picture_and_numbers_are_files_of_one_folder(tmp_path):
    run = trained(tmp_path, samples=[sample("$c$ 日本", "$c$ $c$ <d>")])
    path = render.write_sample_map(run, "test")
    assert path == tmp_path / "plots" / "attention-test-7.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf8"))
    assert found["source"] == ["$c$", "日本", "<eos>"]
    assert found["target"] == ["$c$", "$c$", "<d>", "<eos>"]
    assert found["layer"] == "decoder"
    assert {"weights", "layers", "heads"} < found.keys()
    before = path.read_bytes()
    render.write_sample_map(run, "test")
    assert path.read_bytes() == before


def test_a_line_separator_within_a_sample_does_not_end_its_line(tmp_path):
    run = trained(tmp_path, samples=[sample("a\u2028b", "a b a")])
    assert "\u2028" in (tmp_path / "samples" / "test-7.jsonl").read_text("utf8")
    assert render.write_sample_map(run, "test")


def test_white_space_is_visible_in_labels():
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("a \n"), tokenizer.eos]
    assert extract.token_labels(tokenizer, ids) == ["a", "␣", "␣", "<eos>"]


def test_nothing_is_plotted_without_samples_or_source(tmp_path):
    run = trained(tmp_path / "a", samples=[])
    assert render.write_sample_map(run, "test") is None
    assert render.write_sample_map(run, "validation") is None
    text = trained(tmp_path / "b", samples=[sample("a", "a")], task=TextTask)
    assert render.write_sample_map(text, "test") is None
    assert not list(tmp_path.glob("*/plots"))


def test_a_title_names_the_layer_and_how_it_was_chosen():
    rnn = SampleMap([], [], [], "decoder", 1, 1)
    assert render.sample_title(rnn, "rnn") == "rnn, decoder"
    deep = dataclasses.replace(rnn, layer="decoder/layers_1", layers=6, heads=8)
    lines = render.sample_title(deep, "transformer").split("\n")
    assert lines == [
        "transformer, decoder/layers_1",
        "sharpest of 6 layers, mean of 8 heads",
    ]
