"""Tests of the attention of all layers and heads, of small untrained models."""

import functools
import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from analysis.attention import extract, render
from analysis.attention.extract import (
    AttentionMap,
    TextAttention,
    extract_attention,
    to_banded,
)
from data.tokenizers.symbols import WordTokenizer
from experiment.build import Experiment
from experiment.restore import TrainedRun
from helpers.architectures import LanguageModelCase, Seq2SeqCase, V, W, only
from training.run_dir import RunDirectory
from utils.errors import UserError

SIGNS = ["<pad>", "<eos>", "<unk>", "<bos>"]
WORDS = ["a", "b", "$c$", "日本", "</script><b>", "c"]


def tokenizer(size):
    return WordTokenizer([*SIGNS, *WORDS, *(f"w{i}" for i in range(size - 10))])


class TranslationTask:
    model_class = "Seq2Seq"
    source, target = tokenizer(W), tokenizer(V)


class TextTask:
    model_class = "LanguageModel"
    tokenizer = tokenizer(V)


@functools.cache
def case_of(kind, name):
    return kind(name)


def trained(case, name, task, evaluation=None):
    """A run as `open_run` returns it."""
    keys = "attention_window", "memory_length", "same_length", "clamp_length"
    asked = dict.fromkeys(keys)
    cfg = ConfigDict({"model": {"name": name}, "eval": {**asked, **(evaluation or {})}})
    experiment = Experiment(cfg, task(), case.model, {})
    return TrainedRun(RunDirectory("runs/a"), experiment, case.variables, (7,))


def translation(name, *lines):
    return extract_attention(
        trained(case_of(Seq2SeqCase, name), name, TranslationTask), lines
    )


def text(name, *lines, evaluation=None):
    case = case_of(LanguageModelCase, name)
    return extract_attention(trained(case, name, TextTask, evaluation), lines)


@pytest.mark.parametrize("name", only("transformer_xl"))
def test_each_row_of_every_head_is_a_distribution_over_the_columns(name):
    (view,) = translation(name, "a w1 b\tw2 日本")
    assert view.title == "a w1 b → w2 日本"
    kinds = [layer_map.kind for layer_map in view.maps]
    assert kinds.count("cross") == (1 if name == "rnn" else 2)
    assert kinds.count("self") == (0 if name == "rnn" else 4)
    for layer_map in view.maps:
        heads = 1 if name == "rnn" else 3
        assert layer_map.weights.shape == (
            heads,
            len(layer_map.rows),
            len(layer_map.columns),
        )
        np.testing.assert_allclose(layer_map.weights.sum(axis=-1), 1.0, atol=1e-5)
        source = ["a", "w1", "b", "<eos>"]
        if layer_map.layer.startswith("encoder"):
            assert (layer_map.rows, layer_map.columns) == (source, source)
        else:
            assert layer_map.rows == ["w2", "日本", "<eos>"]
            own = ["<bos>", "w2", "日本"]
            assert layer_map.columns == (source if layer_map.kind == "cross" else own)


@pytest.mark.parametrize("name", only("transformer"))
def test_other_sentences_of_a_batch_change_nothing(name):
    (alone,) = translation(name, "a w1 b\tw2 日本")
    beside = translation(name, "a w1 b\tw2 日本", "a\tb c a b a b")[0]
    for one, other in zip(alone.maps, beside.maps, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


@pytest.mark.parametrize("name", only("rnn", "transformer_xl"))
def test_a_token_of_a_text_attends_to_earlier_tokens_only(name):
    first, second = text(name, "a b w1", "w2 w3")
    newest = 2 if name == "rnn" else 1
    for view, size in ((first, 4), (second, 3)):
        for layer_map in view.maps:
            assert len(layer_map.rows) == size
            rows, columns = np.indices(layer_map.weights.shape[1:])
            distance = layer_map.offset + rows - (size - 1) - columns
            assert (layer_map.weights[:, distance < newest] == 0).all()
            assert (layer_map.weights[:, distance == newest] > 0).all()
            full = layer_map.weights.sum(axis=-1)[:, newest - 1 :]
            np.testing.assert_allclose(full, 1.0, atol=1e-5)


@pytest.mark.parametrize("name", ["rnn", "transformer_xl"])
def test_a_text_read_in_parts_has_the_attention_of_one_read_at_once(name, monkeypatch):
    line = "a b w1 w2 日本 w3 c"
    (whole,) = text(name, line)
    monkeypatch.setattr(extract, "MAX_TOKENS", 5)
    first, second = text(name, line)
    assert (len(first.maps[0].rows), len(second.maps[0].rows)) == (5, 3)
    for one, part in zip(whole.maps, second.maps, strict=True):
        assert part.columns == one.columns
        np.testing.assert_allclose(part.weights, one.weights[:, 5:], atol=1e-5)


def test_columns_are_the_memory_of_the_evaluation():
    lines = ["a b w1 w2", "w3 w4"]
    for length in (2, 4):
        view = text("transformer_xl", *lines, evaluation={"memory_length": length})[1]
        assert view.maps[0].columns[-3:] == ["<eos>", "w3", "w4"]
        assert len(view.maps[0].columns) == length + 3


def test_a_transformer_has_no_memory_of_earlier_lines():
    _, second = text("transformer", "a b w1", "w2 w3")
    assert second.maps[0].columns == ["<eos>", "w2", "w3"]


def test_scanned_layers_have_a_map_each():
    case = LanguageModelCase("transformer", scan_layers=True)
    (view,) = extract_attention(trained(case, "transformer", TextTask), ["a b w1"])
    (expected,) = text("transformer", "a b w1")
    for one, other in zip(view.maps, expected.maps, strict=True):
        assert one.layer == other.layer
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


def test_a_model_without_attention_is_refused():
    case = LanguageModelCase("rnn", readout="none", attention_window=0)
    with pytest.raises(UserError, match="no attention"):
        extract_attention(trained(case, "rnn", TextTask), ["a b"])


def test_recurrent_windows_become_rows_of_a_band_matrix():
    found = to_banded(np.asarray([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]))
    expected = [[0.1, 0.9, 0, 0], [0, 0.3, 0.7, 0], [0, 0, 0.5, 0.5]]
    np.testing.assert_array_equal(found, expected)


def make_map(weights, offset=None):
    weights = np.asarray(weights, float)
    rows = [f"r{i}" for i in range(weights.shape[1])]
    columns = [f"c{i}" for i in range(weights.shape[2])]
    return AttentionMap("stack/layers_0", "self", rows, columns, weights, offset)


def test_distances_count_from_the_predicted_token():
    # The last row's word stands 3 after the first column, the row before it 2.
    found = make_map(
        [[[0.25, 0.75, 0.0], [0.5, 0.4, 0.1]]], offset=3
    ).weights_by_distance
    np.testing.assert_allclose(found, [[(0.75 + 0.1) / 2, (0.25 + 0.4) / 2, 0.5]])
    assert make_map([[[1.0]]]).weights_by_distance.shape == (1, 0)


def test_each_head_has_its_own_entropy():
    found = make_map([[[1.0, 0.0]], [[0.5, 0.5]]]).entropies
    np.testing.assert_allclose(found, [0.0, np.log(2)])


def page_content(page):
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    return json.loads(found[1])


def test_the_page_contains_its_numbers_and_no_text_is_markup():
    found = translation("transformer", "a </script><b>\t日本 </script><b>")
    content = render.page_content("<i> at step 7", found)
    html = render.render_page(content)
    assert page_content(html) == content
    assert html.count("<b>") == 0
    assert "<i> at" not in html
    one, shown = found[0].maps[0], content["texts"][0]["maps"][0]
    np.testing.assert_allclose(
        np.asarray(shown["weights"]) / content["unit"], one.weights, atol=1e-3
    )
    assert shown["rows"] == ["日本", "</script><b>", "<eos>"]


def test_the_page_loads_no_other_file():
    html = render.render_page(render.page_content("a", text("rnn", "a b")))
    plain = html.replace("http://www.w3.org/2000/svg", "")  # a name that is not loaded
    for word in ("http:", "https:", "src=", "url(", "@import", "fetch(", "<link"):
        assert word not in plain


def test_the_page_shows_the_nearest_words_of_a_long_memory():
    weights = np.full((1, 1, 100), 0.01)
    content = render.map_content(make_map(weights, offset=100))
    assert content["columns"][-1] == "c99"
    assert len(content["columns"]) == len(content["weights"][0][0]) == 64
    assert len(content["distances"][0]) == 100


def test_there_are_pictures_of_layers_distances_and_entropies(tmp_path):
    one = make_map(np.full((2, 3, 5), 0.2), offset=5)
    written = render.write_plots(
        [TextAttention("a", [one]), TextAttention("b", [one])], tmp_path
    )
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "maps/1-stack-layers_0.png",
        "maps/2-stack-layers_0.png",
        "distances.png",
        "entropies.png",
    }
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
