"""Examples that keep their order pass through a file, not through memory."""

import pytest
from tensorflow_datasets.core import shuffle

from data.corpus import open_corpus
from data.tfds_patches import OrderedShuffler


def test_examples_come_back_in_order_and_the_file_goes(tmp_path):
    spool = OrderedShuffler(tmp_path / "new")
    given = [(0, b""), (1, b"one"), (7, bytes(range(256)) * 9)]
    for key, data in given:
        spool.add(key, data)
    assert (spool.num_examples, spool.size) == (3, 3 + 256 * 9)
    assert spool.bucket_lengths == [3]
    assert list(spool) == given
    assert list((tmp_path / "new").iterdir()) == []
    assert list(OrderedShuffler(tmp_path)) == []


def test_examples_out_of_order_are_refused(tmp_path):
    spool = OrderedShuffler(tmp_path)
    spool.add(3, b"")
    for key in (3, 2):
        with pytest.raises(ValueError, match=f"example {key} comes after example 3"):
            spool.add(key, b"")


def test_a_corpus_larger_than_tfds_keeps_in_memory_needs_no_tensorflow(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 10)
    lines = [f"line {number}" for number in range(99)]
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    corpus = open_corpus("plain_text", str(tmp_path / "data"), str(tmp_path))
    assert [text for (text,) in corpus.read("train")] == lines
    assert shuffle.Shuffler is not OrderedShuffler
