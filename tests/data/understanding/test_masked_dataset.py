"""Documents opened for an experiment, and refusals of unsuitable ones."""

import numpy as np
import pytest

from configs import base
from data.corpus import TRAIN
from data.understanding.markers import MARKERS
from data.understanding.masked_dataset import open_masked
from data.understanding.masking import MaskingOptions
from helpers.tables import write
from utils.errors import UserError

PAIRS = MaskingOptions(next_sentence=True)
TRAIN_LINES = ["It rained.", "He left.", "", "Next day.", "So it was."]


def open_lines(folder, train=TRAIN_LINES, options=PAIRS, **keys):
    write(folder / "source/train.txt", train)
    write(folder / "source/valid.txt", ["It left.", "He rained."])
    cfg = base.get_config("transformer").data
    cfg.update({"name": "document_text", "dir": str(folder / "data"), **keys})
    cfg.source_dir = str(folder / "source")
    cfg.tokenizer, cfg.batch_size, cfg.max_length = "char", 3, 16
    return open_masked(cfg, options)


def test_the_dataset_has_batches_hashes_and_a_tokenizer_with_markers(tmp_path):
    dataset = open_lines(tmp_path)
    tokenizer = dataset.tokenizers["text"]
    assert tuple(tokenizer.tags) == MARKERS
    batches = dataset.train_batches()
    assert batches[0]["tokens"].shape == (3, 16)
    assert batches.shapes == [(3, 16)]
    assert batches.num_examples(0) == 3
    sentences = [s for (text,) in dataset.texts("validation") for s in text.split("\n")]
    assert [s for s in sentences if s] == ["It left.", "He rained."]
    again = open_lines(tmp_path)
    assert again.hashes == dataset.hashes
    assert open_lines(tmp_path / "b", TRAIN_LINES[:-1]).hashes != dataset.hashes
    counts = np.bincount(dataset.documents[TRAIN].tokens, minlength=5)
    best = int(dataset.unigram.argmax())
    assert best == int(counts.argmax())
    assert np.exp(dataset.unigram).sum() == pytest.approx(1)


def test_what_cannot_be_learned_from_is_refused_in_one_line(tmp_path):
    one = open_lines(tmp_path / "one", TRAIN_LINES[:2])
    with pytest.raises(UserError, match=r"single one: separate documents by blank"):
        one.train_batches()
    short = open_lines(tmp_path / "short", ["A.", "", "B."])
    with pytest.raises(UserError, match="documents of two sentences or more"):
        short.train_batches()
    with pytest.raises(UserError, match="is a single one"):
        open_lines(tmp_path).evaluation_batches("validation", batch_size=2)
    with pytest.raises(UserError, match=r"no split 'test'; it has train, validation"):
        open_lines(tmp_path).evaluation_batches("test", batch_size=2)
    ordered = {"document_order": True, "options": MaskingOptions()}
    with pytest.raises(UserError, match="batch_size=3 is more than the 2 segments"):
        open_lines(tmp_path / "few", ["A.", "", "B."], **ordered).train_batches()
    evaluation = open_lines(tmp_path / "few", ["A.", "", "B."], **ordered)
    assert len(evaluation.evaluation_batches("validation", batch_size=9)) == 1


def test_a_column_of_a_table_is_read_as_text(tmp_path):
    rows = ["text\tlabel", "It rained.\tyes", "He left.\tno"]
    for stem in ("train", "valid"):
        write(tmp_path / f"{stem}.tsv", rows)
    cfg = base.get_config("transformer").data
    cfg.update({"name": "labeled_text", "dir": str(tmp_path / "data")})
    cfg.source_dir, cfg.tokenizer = str(tmp_path), "char"
    with pytest.raises(UserError, match=r"the columns label, text: set data.text"):
        open_masked(cfg, MaskingOptions())
    cfg.text_column = "text"
    dataset = open_masked(cfg, MaskingOptions())
    tokens = dataset.documents[TRAIN].tokens.tolist()
    assert dataset.tokenizers["text"].decode(tokens) == "It rained. He left. "
