"""Preparation of small corpora from a server on loopback."""

import pytest

from data.corpus import open_corpus
from utils.errors import UserError


def prepare(name, tmp_path, source=None):
    return open_corpus(name, tmp_path / "data", source)


def refusal(name, tmp_path, source=None):
    """Returns the one-line message of the error of preparing; nothing is prepared."""
    with pytest.raises(UserError) as caught:
        prepare(name, tmp_path, source)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(tmp_path.glob("data/**/dataset_info.json"))
    return message


def check(corpus, case):
    assert corpus.splits.keys() >= case.expected.keys()
    for split, examples in case.expected.items():
        assert list(corpus.read(split)) == examples
        assert corpus.splits[split] == len(examples)


def served(make, monkeypatch, server):
    """Serves a small corpus."""
    made = make(monkeypatch, server.address)
    server.files |= made.files
    return made
