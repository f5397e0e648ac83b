"""Attention maps of small untrained classifiers of texts."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from analysis.attention.extract import MAX_TOKENS, extract_attention, sample_map
from analysis.attention.render import write_plots, write_sample_map
from configs import base
from data.tokenizers.symbols import WordTokenizer
from data.understanding.labels import Labels
from data.understanding.markers import MARKERS
from experiment.build import build_experiment
from experiment.restore import TrainedRun
from training.run_dir import RunDirectory

WORDS = ["<pad>", "<eos>", "<unk>", "<bos>", "rain", "sun", "goal"]
TOKENIZERS = {
    "text": WordTokenizer(WORDS).with_tags(MARKERS),
    "label": Labels(["sport", "weather"], [1, 2]),
    "tag": Labels(["B-X", "O"], [1, 2]),
}
HEADS = {"rnn": 1, "transformer": 2, "transformer_xl": 2}


@functools.cache
def classifier(
    name, pair_column=None, task="classification", pooling="attention", **model
):
    cfg = base.get_config(name)
    cfg.task = task
    cfg.data.update({"text_column": "text", "label_column": "label"})
    cfg.data.update({"pair_column": pair_column, "segment_length": 48})
    cfg.data.tag_column = "tags"
    cfg.head.pooling = pooling
    sizes = {"layers": 1, "width": 8, "embedding_width": 8, "attention_width": 8}
    sizes |= {"heads": 2, "feed_forward": 8, "memory_length": 4}
    cfg.model.update({k: v for k, v in sizes.items() if k in cfg.model} | model)
    experiment = build_experiment(cfg, TOKENIZERS)
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: noise.normal(0, 0.1, leaf.shape).astype(np.float32),
        nn.meta.unbox(experiment.parameters()),
    )
    return TrainedRun(RunDirectory("run"), experiment, {"params": params}, (7,))


@pytest.mark.parametrize("name", HEADS)
def test_maps_are_of_all_layers_and_titled_with_the_prediction(name):
    run = classifier(name)
    [(label, score), _] = next(run.experiment.task.predict_n_best(*run.inputs(["sun"])))
    [text] = extract_attention(run, ["sun"])
    assert text.title == f"sun → {label} ({score:.2f})"
    kinds = {one.kind: one for one in text.maps}
    assert kinds["self"].rows == kinds["self"].columns == ["[CLS]", "sun", "[SEP]"]
    assert kinds["self"].weights.shape == (HEADS[name], 3, 3)
    assert (kinds["pooling"].rows, kinds["pooling"].columns) == (
        [label],
        kinds["self"].columns,
    )
    for one in text.maps:
        np.testing.assert_allclose(one.weights.sum(axis=-1), 1, atol=1e-5)


def test_a_long_line_is_read_whole_and_shown_from_its_beginning():
    run = classifier("transformer_xl")
    [text] = extract_attention(run, ["sun rain " * 40])
    for one in text.maps:
        assert one.weights.shape[-1] == len(one.columns) == MAX_TOKENS
        assert (one.weights.sum(axis=-1) < 0.95).all()  # the rest is not shown


def test_pooling_weights_do_not_depend_on_the_line_before():
    run = classifier("transformer")
    both, [alone] = (
        extract_attention(run, lines) for lines in (["goal", "sun"], ["sun"])
    )
    pairs = zip(both[1].maps, alone.maps, strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.weights, other.weights)


def test_a_pair_is_one_text_of_two_segments():
    run = classifier("transformer", "pair")
    [text] = extract_attention(run, ["sun\train"])
    assert text.maps[0].columns == ["[CLS]", "sun", "[SEP]", "rain", "[SEP]"]


@pytest.mark.parametrize(
    ("task", "line", "columns", "kinds"),
    [
        ("tagging", "rain sun", "[CLS] rain sun [SEP]", ["self", "pooling"]),
        (
            *("relation_extraction", "<e1> sun </e1> <e2> goal </e2>"),
            *("[CLS] <e1> sun </e1> <e2> goal </e2> [SEP]", ["self", "pooling"]),
        ),
        (
            *("masked_language_modeling", "sun <mask> goal"),
            *("[CLS] sun <mask> goal [SEP]", ["self"]),
        ),
    ],
)
def test_lines_of_other_tasks_are_read_as_predict_reads_them(
    task, line, columns, kinds
):
    [text] = extract_attention(classifier("transformer", task=task), [line])
    assert [one.kind for one in text.maps] == kinds
    assert text.maps[0].columns == columns.split()
    assert text.title.startswith(f"{line} → ")
    if task == "tagging":  # the intent, not the tags
        assert text.maps[1].rows[0] in TOKENIZERS["label"].names


def test_layers_with_unequal_numbers_of_heads_are_plotted(tmp_path):
    texts = extract_attention(classifier("transformer"), ["sun", "rain goal"])
    assert (tmp_path / "entropies.png") in write_plots(texts, tmp_path)


@pytest.mark.parametrize("name", HEADS)
def test_the_map_of_a_sample_has_the_pooling_and_all_tokens(name):
    run = classifier(name)
    found = sample_map(run, {"source": "sun rain", "hypothesis": "weather"})
    [text] = extract_attention(run, ["sun rain"])
    layer, pooling = text.maps if text.maps[1].kind == "pooling" else text.maps[::-1]
    assert found.source == ["[CLS]", "sun", "rain", "[SEP]"]
    assert found.target == ["→ weather", *found.source]
    assert (found.kind, found.layer) == ("self", layer.layer)
    assert (found.layers, found.heads) == (1, HEADS[name])
    weights = [pooling.weights[0], layer.weights.mean(axis=0)]
    np.testing.assert_allclose(found.weights, np.concatenate(weights), atol=5e-5)


def test_the_pooling_alone_is_shown_of_an_encoder_without_self_attention():
    changes = {"readout": "none", "attention_window": 0}
    found = sample_map(
        classifier("rnn", **changes), {"source": "sun", "hypothesis": "weather"}
    )
    assert (found.target, found.layer) == (["→ weather"], "pooler")
    found = sample_map(
        classifier("rnn", pooling="mean", **changes),
        {"source": "sun", "hypothesis": "weather"},
    )
    assert found is None


@pytest.mark.parametrize(
    ("task", "sample", "rows"),
    [
        (
            "tagging",
            {"hypothesis": "O B-X", "hypothesis_intent": "sport"},
            "[CLS] rain sun goal sun rain [SEP]",
        ),
        ("relation_extraction", {"hypothesis": "sport"}, None),
    ],
)
def test_the_first_sample_of_moderate_length_is_plotted(tmp_path, task, sample, rows):
    run = classifier("transformer", task=task)
    run = dataclasses.replace(run, directory=RunDirectory(tmp_path))
    sources = ["sun", "rain sun goal sun rain", "goal goal goal goal goal"]
    if task == "relation_extraction":
        sources = [f"<e1> {source} </e1> <e2> sun </e2>" for source in sources]
        rows = "[CLS] <e1> sun </e1> <e2> sun </e2> [SEP]"
    samples = [{"source": source, **sample} for source in sources]
    run.directory.write_lines("samples/test-7.jsonl", samples)
    path = write_sample_map(run, "test")
    assert path == tmp_path / "plots" / "attention-test-7.png"
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf8"))
    assert found["source"] == rows.split()
    assert found["target"] == ["→ sport", *rows.split()]
