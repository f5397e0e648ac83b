"""What a toy would fail: real corpora, short runs, and what they learnt from."""

import importlib
import os
from pathlib import Path

import pytest

from data.dataset import open_dataset
from helpers.small_runs import ShortRun, config, forget, shuffle_sources, small_corpora

MODELS = ("rnn", "transformer", "transformer_xl")
# A recurrent model, or a memory, needs longer to be used than words' frequencies do.
STEPS_ON_TEXT = {"rnn": 200, "transformer": 100, "transformer_xl": 200}
STEPS_OF_TRANSLATION = {"rnn": 160, "transformer": 70, "transformer_xl": 110}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_corpora(monkeypatch, num_pairs=4000)
        yield tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(
    "model",
    [  # each architecture learns one of both tasks, but the Transformer: its layers
        # are those of a Transformer-XL
        pytest.param(x, marks=[pytest.mark.slow] * (x != "transformer_xl"))
        for x in MODELS
    ],
)
def test_a_short_run_on_text_beats_unigrams_and_uses_its_carry(data_dir, model):
    cfg = config("python_stdlib", model, data_dir, steps=STEPS_ON_TEXT[model])
    run = ShortRun(cfg)
    loss = run.loss()
    assert loss < 0.95 * run.dataset.unigram_loss("validation")
    assert run.compilations == 1
    forgetful = run.loss(forget)
    if model == "transformer":  # it remembers nothing in the first place
        assert forgetful == loss
    else:
        assert forgetful > 1.01 * loss


@pytest.mark.parametrize(
    ("model", "buckets"),
    [
        ("rnn", 1),
        # training/parallel/test_partitioning.py compiles a step for two shapes.
        pytest.param("rnn", 2, marks=pytest.mark.slow),
        pytest.param("transformer", 1, marks=pytest.mark.slow),
        pytest.param("transformer_xl", 1, marks=pytest.mark.slow),
    ],
)
def test_a_short_run_of_translation_learns_the_source_and_compiles_once_a_bucket(
    data_dir, model, buckets
):
    changes = {"data.buckets": buckets}
    steps = STEPS_OF_TRANSLATION[model]
    run = ShortRun(config("cldr", model, data_dir, steps=steps, **changes))
    assert run.compilations == buckets
    loss = run.loss()
    assert loss < 0.8 * run.dataset.unigram_loss("validation")
    assert run.loss(shuffle_sources) > 1.1 * loss


def test_no_source_of_test_or_validation_is_in_train(data_dir):
    dataset = open_dataset(config("cldr", "rnn", data_dir).data)
    train = {source for source, _ in dataset.texts("train")}
    for split in ("validation", "test"):
        assert not train & {source for source, _ in dataset.texts(split)}


PUBLISHED = {"multi30k": "multi30k/en-de", "ptb": "ptb", "wikitext2": "wikitext2"}


@pytest.mark.slow
@pytest.mark.skipif(
    "CORPORA" not in os.environ, reason="needs CORPORA=DIR with licensed texts"
)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_short_run_on_a_published_corpus_beats_unigrams(tmp_path, name, model):
    cfg = importlib.import_module(f"configs.{name}").get_config(model)
    cfg.steps, cfg.data.dir = 200, str(tmp_path)
    cfg.data.source_dir = str(Path(os.environ["CORPORA"]) / name)
    cfg.data.batch_size, cfg.data.tokens_per_batch, cfg.eval.batch_size = 8, 1024, 64
    run = ShortRun(cfg)
    assert run.loss() < run.dataset.unigram_loss("validation")
