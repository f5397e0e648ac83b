"""Shards of equal size, evenly spaced samples, and groups that fit into memory."""

import itertools

import numpy as np
import pytest

from data.corpus import mean_size, sample_evenly
from data.token_writer import (
    SHARD_SIZE,
    group_by_characters,
    make_shards,
    write_array,
)
from data.tokenizers.base import CHUNK


class Lines:
    """Corpus of texts of one length, each its number."""

    def __init__(self, count, length):
        self.splits = {"train": count, "empty": 0}
        self.length = length

    def read(self, split, start=0, stop=None):
        for number in range(self.splits[split])[start:stop]:
            yield (str(number).rjust(self.length),)


@pytest.mark.parametrize(("count", "length"), [(7, 10), (40_000, 10), (10, 10**7)])
def test_shards_hold_every_example_once_and_similar_amounts_of_text(count, length):
    parts = make_shards(Lines(count, length), "train", None)
    ends = [(part.start, part.stop) for part in parts]
    assert ends[0][0] == 0
    assert ends[-1][1] == count
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    sizes = [(stop - start) * length for start, stop in ends]
    assert max(sizes) <= max(SHARD_SIZE, length)
    assert min(sizes[:-1], default=SHARD_SIZE) >= SHARD_SIZE / 2


def test_a_split_without_examples_has_no_shards():
    assert make_shards(Lines(7, 10), "empty", None) == []


def test_a_sample_has_about_the_given_size_and_is_evenly_spaced():
    corpus = Lines(50_000, 10)
    assert mean_size(corpus, "train") == 10
    found = [int(text) for (text,) in sample_evenly(corpus, "train", 100_000)]
    assert 9_000 <= len(found) <= 10_000
    assert len(set(found)) == len(found)
    tenths = np.bincount(np.asarray(found) // 5000, minlength=10)
    assert tenths.min() > 0.9 * tenths.max()


@pytest.mark.parametrize("most", [0, 10**9])
def test_a_sample_larger_than_the_corpus_is_the_corpus(most):
    corpus = Lines(300, 10)
    assert list(sample_evenly(corpus, "train", most)) == list(corpus.read("train"))


def test_a_sample_of_long_texts_is_a_few_of_them():
    found = [int(text) for (text,) in sample_evenly(Lines(100, 1000), "train", 5000)]
    assert found == [0, 20, 40, 60, 80]


def test_groups_hold_all_examples_and_are_not_too_large():
    examples = [("x" * size, "y") for size in (1, CHUNK, 5, 7, 3 * CHUNK, 2)]
    found = list(group_by_characters(iter(examples), CHUNK))
    assert [example for block in found for example in block] == examples
    assert [len(block) for block in found] == [2, 3, 1]


def test_arrays_are_written_concatenated(tmp_path):
    parts = [np.arange(5), np.arange(0), np.arange(3) * 7]
    size, digest = write_array(f"{tmp_path}/a.npy", iter(parts), np.int64)
    found = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(found, np.concatenate(parts))
    assert size == 8
    assert (
        digest == write_array(f"{tmp_path}/b.npy", [np.concatenate(parts)], np.int64)[1]
    )
    assert digest != write_array(f"{tmp_path}/c.npy", parts[:1], np.int64)[1]
    assert write_array(f"{tmp_path}/d.npy", [], np.uint16)[0] == len(
        np.load(tmp_path / "d.npy")
    )
