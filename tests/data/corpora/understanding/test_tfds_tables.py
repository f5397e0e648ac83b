"""Labelled and tagged corpora of TFDS, prepared without TensorFlow."""

import sys

import pytest
import tensorflow_datasets as tfds

from configs import base
from data.corpus import open_corpus
from data.pairs import open_pairs
from data.table import as_table
from helpers.loopback import pack, serving, text

GLUE = {
    "SST-2/train.tsv": text("sentence\tlabel", "fine \t1", "bad “\t0"),
    "SST-2/dev.tsv": text("sentence\tlabel", "good\t1"),
    "SST-2/test.tsv": text("index\tsentence", "0\tnone"),
}
TAGGED = text("-DOCSTART- -X- -X- O", "", "EU NNP B-NP B-ORG", "says VBZ B-VP O", "")
CONLL = {f"{stem}.txt": TAGGED for stem in ("train", "valid", "test")}
FOLDERS = ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos")
IMDB = {f"aclImdb/{folder}/0_1.txt": folder.encode() for folder in FOLDERS}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Returns a function that prepares a corpus from files on loopback."""
    assert "tensorflow" not in sys.modules
    with serving() as server:

        def open_served(name, files):
            server.files |= {path: pack(path, files[path]) for path in files}
            for method in ("download", "download_and_extract"):
                served = redirect(method, server.address)
                monkeypatch.setattr(tfds.download.DownloadManager, method, served)
            return as_table(open_corpus(name, tmp_path, tables=True))

        yield open_served
    assert "tensorflow" not in sys.modules


def redirect(method, address):
    """Returns a method of TFDS that downloads files of other hosts from `address`."""
    original = getattr(tfds.download.DownloadManager, method)
    return lambda self, url: original(self, f"{address}/{url.rpartition('/')[2]}")


def test_glue_is_prepared_without_tensorflow(prepare):
    corpus = prepare("glue/sst2", {"SST-2.zip": GLUE})
    columns = ("sentence", "label")
    read = {split: set(corpus.read_columns(split, columns)) for split in corpus.splits}
    assert read["train"] == {("fine ", "positive"), ("bad “", "negative")}
    assert read["validation"] == {("good", "positive")}
    assert read["test"] == {("none", "")}  # TFDS marks a missing label with -1


def test_conll2003_of_tfds_is_prepared_without_tensorflow(prepare):
    corpus = prepare("conll2003", {"conll2003.zip": CONLL})
    assert {*corpus.splits} == {"train", "validation", "test"}
    sentences = list(corpus.read_columns("validation", ("tokens", "ner")))
    # TFDS ends each split with an empty sentence.
    assert sentences == [(["EU", "says"], ["B-ORG", "O"]), ([], [])]


def test_columns_of_tfds_are_read_as_pairs_of_texts(prepare, tmp_path):
    prepare("conll2003", {"conll2003.zip": CONLL})
    cfg = base.get_config().data
    cfg.name, cfg.dir = "conll2003", f"{tmp_path}"
    cfg.source_column, cfg.target_column = "tokens", "ner"
    corpus = open_pairs(cfg)
    assert (corpus.kind, corpus.languages) == ("parallel", ())
    # The words of a sequence are joined.
    assert list(corpus.read("validation")) == [("EU says", "B-ORG O"), ("", "")]
    assert corpus.column("validation", "chunks") == ["B-NP B-VP", ""]


def test_reviews_of_imdb_are_prepared_without_tensorflow(prepare):
    corpus = prepare("imdb_reviews", {"aclImdb_v1.tar.gz": IMDB})
    splits = ("train", "validation")  # TFDS has no split "validation"
    assert [corpus.splits[split] for split in splits] == [2, 0]
    columns = ("text", "label")
    rows = {row for split in splits for row in corpus.read_columns(split, columns)}
    assert rows == {("train/neg", "neg"), ("train/pos", "pos")}
    assert corpus.splits["unsupervised"] == 1
