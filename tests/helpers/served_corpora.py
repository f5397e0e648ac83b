"""Preparation of small corpora from a server on loopback, and its errors."""

from pathlib import Path

import pytest

from data.corpus import open_corpus
from utils.errors import UserError


def prepare(name, tmp_path, source=None):
    return open_corpus(name, tmp_path / "data", source)


def refusal(name, data_dir, source=None):
    """Returns the one-line message of the error that `open_corpus` raises."""
    with pytest.raises(UserError) as caught:
        open_corpus(name, data_dir, source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refusal_to_prepare(name, tmp_path, source=None):
    """Like `refusal` for `prepare`; checks that nothing was prepared."""
    message = refusal(name, tmp_path / "data", source)
    assert not list(Path(tmp_path).glob("data/**/dataset_info.json"))
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
