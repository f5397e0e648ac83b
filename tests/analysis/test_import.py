"""Tests that published weights become runs for predict.py and eval.py."""

import functools
import hashlib
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.import_transformer_xl.convert import convert
from analysis.import_transformer_xl.vocabulary import read_words, special_first
from analysis.imported_run import check_is_new, write_run
from analysis.weight_files import read_weights
from data.corpora.builders import STEMS
from data.corpora.text import ptb
from data.tokenizers.base import SPECIAL
from data.tokenizers.symbols import WordTokenizer
from experiment import inference, restore
from helpers.entry_points import run
from helpers.golden_transformer_xl import case
from helpers.original_weights import WORDS, config, original, refusal, safetensors
from models.transformer_xl import model as transformer_xl


def imported(path, workdir, words=WORDS, **options):
    """Imports weights as the entry point does."""
    model, params = convert(read_weights(path), memory_length=6, **options)
    model, params, words = special_first(
        model, params, words, end="<eos>", unknown="<unk>"
    )
    write_run(str(workdir), config(model, len(words)), params, WordTokenizer(words), {})
    return restore.open_run(str(workdir), changes={"decode": {"max_length": 5}})


@pytest.mark.parametrize(
    ("name", "prefix", "write"),
    [
        ("a.npz", "transformer.", lambda path, weights: np.savez(path, **weights)),
        ("a.safetensors", "", safetensors),
    ],
)
def test_weights_become_a_run_that_predicts(name, prefix, write, tmp_path):
    weights = original(prefix)
    write(tmp_path / name, weights)
    run = imported(tmp_path / name, tmp_path / "run")
    table = run.variables["params"]["embedding"]["table"]
    theirs = weights[f"{prefix}word_emb.emb_layers.0.weight"]
    np.testing.assert_array_equal(table[1:3], theirs[[0, 2]])  # <eos> and <unk>
    inputs = run.inputs(["the w3", "", "a word not known"])
    lines = list(run.experiment.task.predict(*inputs))
    assert len(lines) == 3
    assert set(" ".join(lines).split()) <= {"the", "<unk>", *WORDS[3:]}
    assert run.experiment.model.config.memory_length == 6


def test_words_keep_their_probabilities_when_special_words_move_to_the_front():
    ours = case("transformer_xl", "fresh")
    size = ours.sizes["vocab_size"]
    names = [f"w{i}" for i in range(size)]
    names[4], names[7] = "<unk>", "<S>"
    values, params = ours.convert("parameters")
    model, params, words = special_first(
        values, params, names, end="<S>", unknown="<unk>"
    )
    assert words[:5] == [*SPECIAL, "w0"]
    assert model["cutoffs"] == (15, 33)
    renamed = {"<unk>": "<unk>", "<S>": "<eos>"}
    moved = np.asarray([words.index(renamed.get(name, name)) for name in names])
    cfg = transformer_xl.Config(**config(model, size + 2).model)
    found = predicted(cfg, size + 2, params, moved[ours.tokens[0]])
    theirs = ours.theirs(0)["log_probabilities"]
    np.testing.assert_allclose(found[..., moved], theirs, rtol=0, atol=1e-5)
    assert (np.exp(found[..., [0, 3]]) == 0).all()


def predicted(cfg, size, params, tokens):
    lm = transformer_xl.LanguageModel(cfg, size)

    @jax.jit
    def run(params, tokens, carry):
        def call(model):
            return model.logits(model(tokens, carry, train=False)[0])

        return nn.apply(call, lm)({"params": params})

    carry = lm.initial_carry(len(tokens), train=True)
    return np.asarray(run(params, jnp.asarray(tokens, jnp.int32), carry))


def test_an_imported_run_is_scored_on_the_corpus_it_names(tmp_path, monkeypatch):
    text = " the w3 w4 <unk> \n w5 the \n" * 20
    for split, stem in STEMS.items():
        (tmp_path / f"ptb.{stem}.txt").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setitem(ptb.Ptb.CHECKSUMS, split, digest)
    model, params = convert(original(), memory_length=6)
    model, params, words = special_first(
        model, params, WORDS, end="<eos>", unknown="<unk>"
    )
    cfg = config(model, len(words))
    cfg.data.name, cfg.data.dir = "ptb", str(tmp_path / "data")
    cfg.data.source_dir = str(tmp_path)
    write_run(str(tmp_path / "run"), cfg, params, WordTokenizer(words), {})
    changes = {"eval": {"segment_length": 8, "batch_size": 2}}
    run = restore.open_run(str(tmp_path / "run"), changes=changes)
    card, _ = inference.evaluate(run, "test")
    assert card["scores"]["loss"]["value"] > 1
    assert card["protocol"]["tokens"] > 100


def test_vocabularies_that_do_not_fit_give_an_error_of_one_line(tmp_path):
    model, params = convert(original())
    fit = functools.partial(special_first, model, params, unknown="<unk>")
    assert "31 words" in refusal(fit, [*WORDS, "more"], end="<eos>")
    assert "--end=<S>" in refusal(fit, WORDS, end="<S>")
    (tmp_path / "twice").write_text("a\nb\na\n")
    assert "lines 1 and 3" in refusal(read_words, tmp_path / "twice")
    (tmp_path / "latin").write_bytes(b"\xe9\n")
    assert "UTF-8" in refusal(read_words, tmp_path / "latin")
    rare = case("transformer_xl", "fresh")
    model, params = rare.convert("parameters")
    words = [f"w{i}" for i in range(59)] + ["<eos>"]
    assert "first cluster" in refusal(
        special_first, model, params, words, end="<eos>", unknown="<unk>"
    )


def texts_of(*command, given=""):
    """Exit code, standard output and standard error of a command."""
    done = run(*command, given=given.encode())
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_entry_points_import_and_continue_text(tmp_path):
    np.savez(tmp_path / "a.npz", **original())
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    workdir = f"--workdir={tmp_path / 'run'}"
    files = (f"--from={tmp_path / 'a.npz'}", f"--vocab={tmp_path / 'vocab.txt'}")
    command = ("analysis/import_transformer_xl/__main__.py", *files, workdir)
    code, output, error = texts_of(*command, "--memory_length=4", "--same_length")
    assert code == 0, error
    assert "32 words" in output
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert (stored["memory_length"], stored["same_length"]) == (4, True)

    code, output, error = texts_of(
        "predict.py", workdir, "--decode.max_length=3", given="the\n"
    )
    assert code == 0, error
    assert output.count("\n") == 1

    code, output, error = texts_of(*command, "--tail_columns=reversed")
    assert (code, output) == (2, "")
    assert error.startswith("error: ")
    assert "tensorflow|pytorch" in error
    assert error.count("\n") == 1


def test_a_directory_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    check_is_new(str(tmp_path / "run"))
    (tmp_path / "run" / "mine.txt").write_text("mine")
    np.savez(tmp_path / "a.npz", **original())
    assert "not empty" in refusal(imported, tmp_path / "a.npz", tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["mine.txt"]
