"""Token ids of documents, stored once."""

import dataclasses
import itertools

import numpy as np
import pytest

from data.corpus import open_corpus
from data.token_writer import group_by_characters
from data.tokenizers.build import train_tokenizer
from data.understanding import documents as module
from data.understanding.documents import open_documents
from helpers.tables import write
from utils.errors import UserError

TRAIN = ["It rained.", "He left.", "\x07", "", "\u200b", "", "Next day.", "So it was."]
SENTENCES = [["It rained.", "He left."], ["Next day.", "So it was."]]


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path / "source/train.txt", TRAIN)
    write(tmp_path / "source/valid.txt", ["It left."])
    return open_corpus("document_text", tmp_path / "data", tmp_path / "source")


def sentences_of(documents, tokenizer):
    """Returns the texts of all sentences, by document."""
    ids = np.split(documents.tokens, documents.sentences[1:-1])
    texts = [tokenizer.decode(one.tolist()) for one in ids]
    ends = documents.documents
    return [texts[start:end] for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("kind", ["wordpiece", "byte"])
def test_documents_are_stored_and_read_again(corpus, tmp_path, kind):
    tokenizer = train_tokenizer(kind, TRAIN, 60, 1)
    found = open_documents(corpus, tmp_path, tokenizer)
    assert len(found["validation"]) == 1
    texts = sentences_of(found["train"], tokenizer)
    if kind == "byte":  # sentences end with their line breaks, and nothing is removed
        assert "".join(texts[0]) == "It rained.\nHe left.\n\x07\n"
    else:
        texts = [[text.replace(" .", ".") for text in one] for one in texts]
        assert texts == SENTENCES
    (folder,) = tmp_path.glob("documents-*")
    stamps = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    again = open_documents(corpus, tmp_path, tokenizer)
    assert stamps == [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    assert again["train"].digest == found["train"].digest
    assert again["train"].digest != found["validation"].digest


def test_parts_of_any_size_give_the_same_arrays(corpus, tmp_path, monkeypatch):
    tokenizer = train_tokenizer("wordpiece", TRAIN, 60, 1)
    whole = open_documents(corpus, tmp_path / "whole", tokenizer)["train"]
    monkeypatch.setattr(module, "SHARD_SIZE", 0)
    monkeypatch.setattr(module, "CHUNK", 3)  # sentences are tokenized in chunks
    parts = open_documents(corpus, tmp_path / "parts", tokenizer)["train"]
    for name in module.ARRAYS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_groups_hold_all_documents_in_order():
    documents = [["a"], ["bb", "c"], ["d"] * 5, ["e"]]
    groups = list(group_by_characters(documents, 2))
    assert groups == [[["a"], ["bb", "c"]], [["d"] * 5], [["e"]]]


def test_a_split_without_sentences_is_refused(corpus, tmp_path):
    tokenizer = train_tokenizer("wordpiece", TRAIN, 60, 1)
    empty = dataclasses.replace(corpus, splits={"train": 0})

    class Empty(type(corpus)):
        def read(self, split, start=0, stop=None):
            return iter([("",), ("\n \n",)])

    fields = {f.name: getattr(empty, f.name) for f in dataclasses.fields(empty)}
    with pytest.raises(UserError, match="has no document in its split 'train'"):
        open_documents(Empty(**fields), tmp_path, tokenizer)
