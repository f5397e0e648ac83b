"""Corpora in memory, and random tokenized examples."""

import numpy as np

from data.token_cache import TokenizedSplit
from data.tokenizers.base import EOS, PAD


class FakeCorpus:
    name, version, kind = "fake/en-de", "1.0.0", "parallel"
    splits = {"train": 3, "test": 1}  # noqa: RUF012
    fields = ("en", "de")

    def read(self, split, start=0, stop=None):
        pairs = [("the cat", "die Katze"), ("a dog", "ein Hund"), ("x", "")]
        return iter(pairs[: self.splits[split]][start:stop])


class OtherCorpus(FakeCorpus):
    name, languages = "other/en-fr", ("en", "fr")
    splits = {"train": 2, "validation": 1}  # noqa: RUF012
    fields = ("en", "fr")


def encoded(lengths, seed=0):
    """Returns random examples of given lengths, EOS included."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(seed).integers(4, 99, offsets[-1]).astype(np.uint16)
    tokens[offsets[1:] - 1] = EOS
    return TokenizedSplit(tokens, offsets, 0, 0, 0)


def labels_of(batches, batch, row):
    """Returns a row's labels, after comparing both sides with the row's pair."""
    for name, side, mask in [
        ("source", batches.source, "source_mask"),
        ("labels", batches.target, "target_mask"),
    ]:
        there = batch[name][row][batch[mask][row]]
        start, end = side.offsets[batch["ids"][row] : batch["ids"][row] + 2]
        np.testing.assert_array_equal(there, side.tokens[start:end])
        assert (batch[name][row][~batch[mask][row]] == PAD).all()
    return there
