"""What all layers and heads look at, of small models that were never trained."""

import functools
import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from analysis.attention import extract, page, plot
from analysis.attention.extract import Look, View, unrolled, views
from data.tokenizers.symbols import WordTokenizer
from experiment.build import Experiment
from experiment.restore import TrainedRun
from helpers.architectures import LanguageModelCase, Seq2SeqCase, V, W, names
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
    """A run, as if it had been opened."""
    keys = "attention_window", "memory_length", "same_length", "clamp_length"
    asked = dict.fromkeys(keys)
    cfg = ConfigDict({"model": {"name": name}, "eval": {**asked, **(evaluation or {})}})
    experiment = Experiment(cfg, task(), case.model, {})
    return TrainedRun(RunDirectory("runs/a"), experiment, case.variables, (7,))


def translation(name, *lines):
    return views(trained(case_of(Seq2SeqCase, name), name, TranslationTask), lines)


def text(name, *lines, evaluation=None):
    case = case_of(LanguageModelCase, name)
    return views(trained(case, name, TextTask, evaluation), lines)


@pytest.mark.parametrize("name", names())
def test_each_row_of_every_head_is_a_distribution_over_the_columns(name):
    (view,) = translation(name, "a w1 b\tw2 日本")
    assert view.title == "a w1 b → w2 日本"
    kinds = [look.kind for look in view.looks]
    assert kinds.count("cross") == (1 if name == "rnn" else 2)
    assert kinds.count("self") == (0 if name == "rnn" else 4)
    for look in view.looks:
        heads = 1 if name == "rnn" else 3
        assert look.weights.shape == (heads, len(look.rows), len(look.columns))
        np.testing.assert_allclose(look.weights.sum(axis=-1), 1.0, atol=1e-5)
        source = ["a", "w1", "b", "<eos>"]
        if look.layer.startswith("encoder"):
            assert (look.rows, look.columns) == (source, source)
        else:
            assert look.rows == ["w2", "日本", "<eos>"]
            own = ["<bos>", "w2", "日本"]
            assert look.columns == (source if look.kind == "cross" else own)


@pytest.mark.parametrize("name", names())
def test_another_sentence_beside_one_changes_nothing_in_it(name):
    (alone,) = translation(name, "a w1 b\tw2 日本")
    beside = translation(name, "a w1 b\tw2 日本", "a\tb c a b a b")[0]
    for one, other in zip(alone.looks, beside.looks, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


@pytest.mark.parametrize("name", names())
def test_a_word_of_a_text_looks_at_words_before_it_and_no_others(name):
    first, second = text(name, "a b w1", "w2 w3")
    newest = 2 if name == "rnn" else 1
    for view, size in ((first, 4), (second, 3)):
        for look in view.looks:
            assert len(look.rows) == size
            rows, columns = np.indices(look.weights.shape[1:])
            distance = look.behind + rows - (size - 1) - columns
            assert (look.weights[:, distance < newest] == 0).all()
            assert (look.weights[:, distance == newest] > 0).all()
            full = look.weights.sum(axis=-1)[:, newest - 1 :]
            np.testing.assert_allclose(full, 1.0, atol=1e-5)


@pytest.mark.parametrize("name", ["rnn", "transformer_xl"])
def test_a_text_read_in_parts_is_looked_at_as_if_read_at_once(name, monkeypatch):
    line = "a b w1 w2 日本 w3 c"
    (whole,) = text(name, line)
    monkeypatch.setattr(extract, "LONGEST", 5)
    first, second = text(name, line)
    assert (first.past, second.past) == (0, 5)
    for one, part in zip(whole.looks, second.looks, strict=True):
        assert part.columns == one.columns
        np.testing.assert_allclose(part.weights, one.weights[:, 5:], atol=1e-5)


def test_the_memory_of_an_evaluation_is_what_is_looked_at():
    lines = ["a b w1 w2", "w3 w4"]
    for length in (2, 4):
        view = text("transformer_xl", *lines, evaluation={"memory_length": length})[1]
        assert view.looks[0].columns[-3:] == ["<eos>", "w3", "w4"]
        assert len(view.looks[0].columns) == length + 3


def test_a_transformer_remembers_no_line_before():
    _, second = text("transformer", "a b w1", "w2 w3")
    assert second.looks[0].columns == ["<eos>", "w2", "w3"]


def test_layers_that_are_scanned_are_looked_at_one_by_one():
    case = LanguageModelCase("transformer", scan_layers=True)
    (view,) = views(trained(case, "transformer", TextTask), ["a b w1"])
    (expected,) = text("transformer", "a b w1")
    for one, other in zip(view.looks, expected.looks, strict=True):
        assert one.layer == other.layer
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


def test_a_model_without_attention_is_refused():
    case = LanguageModelCase("rnn", readout="none", attention_window=0)
    with pytest.raises(UserError, match="no attention"):
        views(trained(case, "rnn", TextTask), ["a b"])


def test_recurrent_windows_become_rows_of_one_map():
    found = unrolled(np.asarray([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]))
    expected = [[0.1, 0.9, 0, 0], [0, 0.3, 0.7, 0], [0, 0, 0.5, 0.5]]
    np.testing.assert_array_equal(found, expected)


def look(weights, behind=None):
    weights = np.asarray(weights, float)
    rows = [f"r{i}" for i in range(weights.shape[1])]
    columns = [f"c{i}" for i in range(weights.shape[2])]
    return Look("stack/layers_0", "self", rows, columns, weights, behind)


def test_distances_are_counted_from_the_word_that_is_written():
    # The last row's word stands 3 after the first column, the row before it 2.
    found = look([[[0.25, 0.75, 0.0], [0.5, 0.4, 0.1]]], behind=3).distances
    np.testing.assert_allclose(found, [[(0.75 + 0.1) / 2, (0.25 + 0.4) / 2, 0.5]])
    assert look([[[1.0]]]).distances.shape == (1, 0)


def test_entropy_is_that_of_each_head():
    found = look([[[1.0, 0.0]], [[0.5, 0.5]]]).entropies
    np.testing.assert_allclose(found, [0.0, np.log(2)])


def page_content(page):
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    return json.loads(found[1])


def test_the_page_holds_its_numbers_and_no_word_of_a_text_is_markup():
    found = translation("transformer", "a </script><b>\t日本 </script><b>")
    content = page.content("<i> at step 7", found)
    html = page.render(content)
    assert page_content(html) == content
    assert html.count("<b>") == 0
    assert "<i> at" not in html
    one, shown = found[0].looks[0], content["texts"][0]["looks"][0]
    np.testing.assert_allclose(
        np.asarray(shown["weights"]) / content["unit"], one.weights, atol=1e-3
    )
    assert shown["rows"] == ["日本", "</script><b>", "<eos>"]


def test_the_page_asks_for_nothing_beside_itself():
    html = page.render(page.content("a", text("rnn", "a b")))
    plain = html.replace("http://www.w3.org/2000/svg", "")  # a name, not a place
    for word in ("http:", "https:", "src=", "url(", "@import", "fetch(", "<link"):
        assert word not in plain


def test_of_a_long_memory_the_page_shows_the_nearest_words():
    weights = np.full((1, 1, 100), 0.01)
    content = page.look_content(look(weights, behind=100))
    assert content["columns"][-1] == "c99"
    assert len(content["columns"]) == len(content["weights"][0][0]) == 64
    assert len(content["distances"][0]) == 100


def test_pictures_are_of_every_layer_of_distances_and_of_entropies(tmp_path):
    one = look(np.full((2, 3, 5), 0.2), behind=5)
    written = plot.write([View("a", [one]), View("b", [one])], tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "maps/1-stack-layers_0.png",
        "maps/2-stack-layers_0.png",
        "distances.png",
        "entropies.png",
    }
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
