"""The cache of token ids on disk."""

import subprocess
import sys

import numpy as np
import pytest

from data import token_writer
from data.storage import atomic_directory
from data.token_cache import open_token_cache
from data.tokenizers.base import EOS
from data.tokenizers.build import open_tokenizers, train_tokenizer
from helpers.fake_corpora import FakeCorpus, encoded


def test_every_token_is_stored_and_tokenization_is_done_once(tmp_path):
    corpus = FakeCorpus()
    calls = []

    def train():
        calls.append(1)
        return {"joint": train_tokenizer("byte", [], 99, 1)}

    for _ in range(2):
        joint = open_tokenizers(corpus, tmp_path, {"tokenizer": "byte"}, train)["joint"]
        sides = [("source", joint), ("target", joint)]
        found, _ = open_token_cache(corpus, tmp_path, sides)
    assert len(calls) == 1
    side = found["train"]["target"]
    rows = [
        side.tokens[a:b] for a, b in zip(side.offsets, side.offsets[1:], strict=False)
    ]
    assert [joint.decode(row) for row in rows] == ["die Katze", "ein Hund", ""]
    assert all(row[-1] == EOS for row in rows)
    assert (side.characters, side.words, side.size) == (20, 7, 20)
    corpus.version = "2.0.0"
    open_tokenizers(corpus, tmp_path, {"tokenizer": "byte"}, train)
    assert len(calls) == 2


@pytest.mark.parametrize("ends", [True, False])
def test_long_examples_are_cut_and_short_ones_are_not(ends):
    whole = encoded([2, 9, 1, 5])
    cut = whole.truncate(4, ends=ends)
    assert cut.lengths.tolist() == [2, 4, 1, 4]
    for start, new, length in zip(
        whole.offsets, cut.offsets, cut.lengths, strict=False
    ):
        expected = whole.tokens[start : start + length].tolist()
        if ends:
            expected[-1] = EOS
        assert cut.tokens[new : new + length].tolist() == expected
    assert whole.truncate(9, ends=ends) is whole


def test_a_failed_write_leaves_nothing(tmp_path):
    def fill():
        with atomic_directory(tmp_path / "whole") as draft:
            (draft / "part").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path):
    target = tmp_path / "whole"
    with atomic_directory(target) as slow:
        (slow / "who").write_text("slow")
        with atomic_directory(target) as fast:
            (fast / "who").write_text("fast")
    assert (target / "who").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_shards_are_written_by_several_processes_and_survive_a_kill(
    tmp_path, monkeypatch
):
    corpus = FakeCorpus()
    byte = train_tokenizer("byte", [], 99, 1)
    sides = [("source", byte), ("target", byte)]
    whole, _ = open_token_cache(corpus, tmp_path / "whole", sides)
    monkeypatch.setattr(token_writer, "SHARD_EXAMPLES", 1)
    once = token_writer.write_shard
    done = []

    def killed(corpus, part, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.name)
        once(corpus, part, *rest)

    monkeypatch.setattr(token_writer.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(token_writer, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        open_token_cache(corpus, tmp_path / "parts", sides)
    monkeypatch.setattr(token_writer, "write_shard", once)
    monkeypatch.setattr(token_writer.os, "cpu_count", lambda: 2)
    # As from a program without a guard around what it does: it must not run again.
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    main = sys.modules["__main__"]  # a worker of the tests' has no file
    monkeypatch.setattr(main, "__file__", str(program), raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    parts, folder = open_token_cache(corpus, tmp_path / "parts", sides)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not (tmp_path / "ran").exists()
    for split, side in (("train", "source"), ("train", "target"), ("test", "target")):
        ours, theirs = parts[split][side], whole[split][side]
        for name in ("tokens", "offsets", "hashes"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.digest, ours.words) == (theirs.digest, theirs.words)


def test_data_needs_neither_jax_nor_tensorflow():
    code = "import sys, data.dataset; print({'jax', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
