"""Tests of the import of BERT weights; tests/models/test_goldens.py has its oracle."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.import_bert.convert import convert
from analysis.import_bert.vocabulary import (
    check_folder,
    make_tokenizer,
    read_json,
    read_lowercase,
    read_words,
    reorder,
)
from analysis.weight_files import read_weights
from data.tokenizers.base import BOS, EOS, PAD, UNK
from data.tokenizers.build import dump_tokenizer, parse_tokenizer
from data.tokenizers.wordpiece import BERT_NAMES
from data.understanding.markers import MARKERS
from helpers.entry_points import run
from helpers.golden_bert import case
from helpers.original_bert import WORDS, config, weights, write_folder
from helpers.original_weights import refusal, without
from models.heads.base import HeadConfig
from models.heads.masked_lm import MaskedLanguageModel
from models.transformer.encoder import Encoder

CLASSES = "cls.seq_relationship"


def test_every_piece_keeps_its_probability_under_its_new_id():
    ours = case("bert")
    tokenizer = make_tokenizer(WORDS, lowercase=True)
    params = reorder(ours.params, WORDS, tokenizer)
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    assert tokenizer.vocab_size == len(WORDS) + len(MARKERS) - 1
    moved = np.asarray([pieces.index(BERT_NAMES.get(word, word)) for word in WORDS])
    assert (moved[[0, 12, 10, 11]] == [PAD, EOS, UNK, BOS]).all()
    assert moved[13] == tokenizer.tags["<mask>"]
    sizes = tokenizer.vocab_size, HeadConfig(), 0
    model = MaskedLanguageModel(ours.model.config, Encoder, *sizes, next_sentence=True)
    inputs, positions = ours.inputs, jnp.tile(jnp.arange(9), (3, 1))
    tokens = jnp.asarray(moved)[inputs["tokens"]]

    @jax.jit
    def predict(params):
        def call(model):
            given = tokens, inputs["segment_ids"], ~inputs["padding"], positions, ()
            return model.logits(model(*given, train=False)[0][0])

        return nn.apply(call, model)({"params": params})

    found = predict(jax.tree.map(jnp.asarray, params))
    theirs = ours.golden.group("outputs")["logits"]
    np.testing.assert_allclose(found[..., moved], theirs, rtol=0, atol=1e-5)
    new = sorted({*range(len(pieces))} - {*moved.tolist()})
    assert (np.exp(np.asarray(jax.nn.log_softmax(found))[..., new]) == 0).all()


def test_names_of_the_first_release_are_read():
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in weights().items()
    }
    assert old.keys() != weights().keys()
    ours, theirs = convert(weights(), config()), convert(old, config())
    assert ours[0] == theirs[0]
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def test_positions_that_some_files_store_are_ignored(tmp_path):
    arrays = {**weights(), "bert.embeddings.position_ids": np.arange(12)[None]}
    write_folder(tmp_path, arrays=arrays)
    assert convert(read_weights(tmp_path / "model.safetensors"), config())


def test_weights_without_next_sentences_are_imported_without_them():
    arrays = without(without(weights(), f"{CLASSES}.weight"), f"{CLASSES}.bias")
    _, params = convert(arrays, config())
    assert not {"pooler", "next_head"} & params.keys()
    for part in ("weight", "bias"):
        arrays = without(arrays, f"bert.pooler.dense.{part}")
    assert convert(arrays, config())[1].keys() == params.keys()


def test_output_weights_of_their_own_are_not_tied():
    assert convert(weights(), config())[0]["tie_embeddings"]
    name = "cls.predictions.decoder.weight"
    model, params = convert({**weights(), name: 2 * weights()[name]}, config())
    assert not model["tie_embeddings"]
    np.testing.assert_array_equal(params["head"]["table"], 2 * weights()[name])


WRONG_CONFIGS = {
    "model_type": "roberta",
    "hidden_act": "gelu_new",
    "position_embedding_type": "relative_key",
    "type_vocab_size": 4,
    "is_decoder": True,
    "hidden_size": "24",
    "num_attention_heads": 5,
    "num_hidden_layers": 0,
    "layer_norm_eps": -1.0,
}
NAME = "bert.encoder.layer.1.attention.self.key.bias"
WRONG_WEIGHTS = {
    "a shape": ({**weights(), NAME: np.ones(23)}, "expected (24,)"),
    "axes": ({**weights(), NAME: np.ones((24, 1))}, "expected 1 axes"),
    "a missing name": (without(weights(), NAME), NAME.removeprefix("bert.")),
    "an unknown name": ({**weights(), "bert.adapter": np.ones(3)}, "adapter"),
    "nothing": ({}, "the 0 of the file"),
    "no masked language model": (
        without(weights(), "cls.predictions.bias"),
        "cls.predictions.bias",
    ),
    "two biases": (
        {**weights(), "cls.predictions.decoder.bias": np.ones(50)},
        "differs",
    ),
}


@pytest.mark.parametrize("key", WRONG_CONFIGS)
def test_a_config_of_another_model_gives_an_error_of_one_line(key):
    assert key in refusal(convert, weights(), config(**{key: WRONG_CONFIGS[key]}))


def test_a_config_without_a_model_type_is_refused():
    assert "model_type=None" in refusal(
        convert, weights(), without(config(), "model_type")
    )


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_give_an_error_of_one_line(what):
    arrays, word = WRONG_WEIGHTS[what]
    assert word in refusal(convert, arrays, config())


def test_more_layers_than_the_config_names_are_refused():
    assert "encoder.layer.1" in refusal(convert, weights(), config(num_hidden_layers=1))


def test_folders_and_files_that_do_not_fit_give_an_error_of_one_line(tmp_path):
    assert "no such folder" in refusal(check_folder, tmp_path / "none")
    assert "no config.json" in refusal(check_folder, tmp_path)
    folder = write_folder(tmp_path)
    check_folder(folder)
    (folder / "config.json").write_text("[1]")
    assert "not list" in refusal(read_json, folder / "config.json")
    (folder / "config.json").write_text("{")
    assert "not a JSON file" in refusal(read_json, folder / "config.json")
    cut = (folder / "model.safetensors").read_bytes()[:-9]
    (folder / "model.safetensors").write_bytes(cut)
    assert "safetensors" in refusal(read_weights, folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors; it has config.json" in refusal(check_folder, folder)


def test_vocabularies_that_do_not_fit_give_an_error_of_one_line(tmp_path):
    path = tmp_path / "vocab.txt"
    read = functools.partial(refusal, read_words, path)
    path.write_text("\n".join([*WORDS, "cat"]))
    assert "lines 42 and 51 are 'cat'" in read()
    path.write_text("a\nb\n")
    assert "it lacks [PAD], [SEP], [UNK], [CLS], [MASK]" in read()
    path.write_bytes(b"\xe9\n")
    assert "UTF-8" in read()
    words = [*WORDS, "dog"]
    tokenizer = make_tokenizer(words, lowercase=True)
    params = case("bert").params
    assert "51 words; the weights have 50" in refusal(reorder, params, words, tokenizer)


def test_lower_casing_follows_the_tokenizer_of_the_folder(tmp_path):
    for options, asked, expected in (
        (None, None, True),
        ({"do_lower_case": False}, None, False),
        ({"do_lower_case": False}, True, True),
        ({"do_lower_case": True, "strip_accents": None}, None, True),
    ):
        folder = write_folder(tmp_path, tokenizer=options)
        assert read_lowercase(folder, asked) == expected
    for options in (
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
    ):
        folder = write_folder(tmp_path, tokenizer=options)
        assert [*options][-1] in refusal(read_lowercase, folder, None)


def texts_of(*command, given=""):
    """Exit code, standard output and standard error of a command."""
    done = run(*command, given=given.encode())
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_entry_points_import_and_fill_masks(tmp_path):
    folder = write_folder(tmp_path / "bert")
    workdir = f"--workdir={tmp_path / 'run'}"
    command = ("analysis/import_bert/__main__.py", f"--from={folder}", workdir)
    code, output, error = texts_of(*command)
    assert code == 0, error
    assert "54 pieces" in output
    assert f"--pretrained={tmp_path / 'run'}" in output
    code, output, error = texts_of(
        *("predict.py", workdir, "--scores", "--decode.n_best=2"),
        given="the <mask> sat.\n",
    )
    assert code == 0, error
    assert [line.partition("\t")[2][:3] for line in output.splitlines()] == ["the"] * 2

    (folder / "config.json").write_text(json.dumps(config(model_type="roberta")))
    code, output, error = texts_of(*command[:2], f"--workdir={tmp_path / 'other'}")
    assert (code, output) == (2, "")
    assert error.startswith("error: config.json: model_type='roberta' must be 'bert'")
    assert error.count("\n") == 1


def test_text_is_tokenized_as_by_bert():
    tokenizer = make_tokenizer(WORDS, lowercase=True)
    pieces = tokenizer.pieces(tokenizer.encode("The BAT, catat é猫!"))
    assert pieces == ["the", "b", "##at", ",", "cat", "##at", "e", "猫", "!"]
    stored = parse_tokenizer(dump_tokenizer(tokenizer))
    assert stored.shares_vocabulary(tokenizer)
    assert stored.normalizer == tokenizer.normalizer
