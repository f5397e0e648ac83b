"""Replacements for private parts of TFDS, and what they rely on."""

import ast
import inspect

import pytest
from tensorflow_datasets.core import dataset_builder, shuffle, writer
from tensorflow_datasets.core.download import downloader, extractor

from data.corpus import open_corpus
from data.tfds_patches import OrderedShuffler


def names_read_from(module, owner):
    """Returns the attributes of `owner` that a module's source reads."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner
    }


class TestTheLibraryIsAsThePatchesExpect:
    def test_its_writer_uses_no_more_of_a_shuffler_than_ours_has(self):
        assert "Shuffler" in names_read_from(writer, "shuffle")
        used = names_read_from(writer, "self._shuffler")
        assert used == {"add", "num_examples", "size", "bucket_lengths"}
        assert all(hasattr(shuffle.Shuffler, name) for name in ("add", "__iter__"))
        parameters = [*inspect.signature(shuffle.Shuffler).parameters]
        assert parameters[:2] == ["dirpath", "hash_salt"]

    def test_its_downloader_reads_the_number_of_retries_from_its_module(self):
        assert downloader.MAX_RETRIES > 0
        assert "total=MAX_RETRIES" in inspect.getsource(downloader)

    def test_its_extractor_uses_no_more_of_tensorflow_than_ours_has(self):
        assert hasattr(extractor, "tf")
        assert names_read_from(extractor, "tf") == {"io", "compat"}
        assert names_read_from(extractor, "tf.io.gfile") == {"GFile"}
        assert names_read_from(extractor, "tf.compat") == {"as_text"}

    def test_its_builder_calls_split_generators_of_the_instance(self):
        source = inspect.getsource(dataset_builder.GeneratorBasedBuilder)
        assert "self._split_generators(" in source


def test_examples_come_back_in_order_and_the_file_goes(tmp_path):
    shuffler = OrderedShuffler(tmp_path / "new")
    given = [(0, b""), (1, b"one"), (7, bytes(range(256)) * 9)]
    for key, data in given:
        shuffler.add(key, data)
    assert (shuffler.num_examples, shuffler.size) == (3, 3 + 256 * 9)
    assert shuffler.bucket_lengths == [3]
    assert list(shuffler) == given
    assert list((tmp_path / "new").iterdir()) == []
    assert list(OrderedShuffler(tmp_path)) == []


def test_examples_out_of_order_are_refused(tmp_path):
    shuffler = OrderedShuffler(tmp_path)
    shuffler.add(3, b"")
    for key in (3, 2):
        with pytest.raises(ValueError, match=f"example {key} comes after example 3"):
            shuffler.add(key, b"")


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
