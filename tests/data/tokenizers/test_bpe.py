"""Merges of byte-pair encoding, compared with SentencePiece."""

import functools

import numpy as np
import pytest

from data.tokenizers.base import UNK
from data.tokenizers.bpe_dropout import encode_with_dropout, load_merges
from data.tokenizers.build import train_tokenizer

TEXTS = [
    "the cat sat on the mat , the other cats sat on other mats",
    "über 12,5 °C — 東京都 m² 1999 2012",
    "a",
    "",
    "abababab abab ab banana bananas bandana " * 5,
]


@functools.cache
def tokenizer():
    texts = [*TEXTS, "the theatre thermal cater " * 3]
    return train_tokenizer("sentencepiece", texts, 100, 1)


def encode(texts, probability, seed=0):
    random = np.random.default_rng(seed)
    numbers, lengths = encode_with_dropout(tokenizer(), texts, probability, random)
    return [row.tolist() for row in np.split(numbers, np.cumsum(lengths)[:-1])]


UNKNOWN = ["xqxq cat zz  qz", "ÄÖÜ", "12 q 34", "the\u2028cat", " the cat "]


@pytest.mark.parametrize("texts", [TEXTS, UNKNOWN, [*UNKNOWN, *TEXTS], [""], ["q"]])
def test_merges_without_dropout_equal_sentencepiece(texts):
    assert encode(texts, 0.0) == [tokenizer().encode(text) for text in texts]
    has_unknown = any(UNK in row for row in encode(texts, 0.0))
    assert has_unknown is (texts[0] not in (TEXTS[0], ""))


def test_skipping_all_merges_leaves_characters():
    for text, row in zip(TEXTS, encode(TEXTS, 1.0), strict=True):
        spaced = f"\u2581{text}".replace(" ", "\u2581")
        assert tokenizer().pieces(row) == (list(spaced) if text else [])


def test_a_merge_is_skipped_with_the_given_probability():
    merges = load_merges(tokenizer().model)
    word = next(
        text
        for text in ("ab", "th", "an")
        if len(merges.segment([text], 0.0, np.random.default_rng())[0]) == 1
    )
    _, counts = merges.segment([word] * 20_000, 0.3, np.random.default_rng(1))
    assert abs((counts == 2).mean() - 0.3) < 0.02
    assert set(counts.tolist()) == {1, 2}


def test_words_do_not_disturb_each_other():
    merges, random = load_merges(tokenizer().model), np.random.default_rng
    together, counts = merges.segment(["banana", "theatre", "cats"], 0.0, random())
    alone = [
        merges.segment([w], 0.0, random())[0] for w in ("banana", "theatre", "cats")
    ]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert counts.tolist() == [len(one) for one in alone]
