"""Every tokenizer restores texts of all Unicode categories, or names what it loses."""

import functools
import sys
import unicodedata

import numpy as np
import pytest

from data.tokenizers.bpe_dropout import encode_with_dropout
from data.tokenizers.build import KINDS, count_lossy_characters, train_tokenizer

SPECIAL = (
    "\0\t\n\v\f\r\x1c\x1d\x1e\x1f\x7f\x85\xa0\xad"  # controls and odd spaces
    "\u2028\u2029\u200b\u200c\u200d\u2060\ufeff"  # separators, joiners, byte order mark
    "\u2047\u2581\u2585\ufffc\ufffd\ufffe\uffff"  # symbols of SentencePiece's own
    "\ue000\U000f0000\U0010ffff\U0001f468"
)
# A letter with its combining mark and composed, ligatures, half width, Hangul.
FORMS = ("e\u0301", "\xe9", "\ufb01", "\uff76\uff9e", "\u212b", "\u1112\u1161\u11ab")
PER_CATEGORY = 12


@functools.cache
def texts() -> tuple[str, ...]:
    """Characters of each category but surrogates, which UTF-8 cannot encode."""
    categories = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        categories.setdefault(unicodedata.category(character), []).append(character)
    del categories["Cs"]
    random = np.random.default_rng(0)
    characters = {*SPECIAL, *FORMS}
    for members in categories.values():
        characters.update(random.choice(members, min(PER_CATEGORY, len(members))))
    return tuple(
        text
        for c in sorted(characters)
        for text in (f"a{c}b", f"{c}a", f"a{c}", f"a{c}{c}b", c, f"a {c} b")
    )


@functools.cache
def trained(kind: str, line_breaks: bool = True):
    kept = [text for text in texts() if line_breaks or "\n" not in text]
    alphabet = len(set("".join(kept)))
    size = dict.fromkeys(("word", "char", "wordpiece"), 10_000)
    size = size.get(kind, alphabet + 8)
    return train_tokenizer(kind, kept, size, 1)


def assert_loses_what_it_names(tokenizer, text, ids):
    is_restored = tokenizer.decode(ids) == text
    is_named = tokenizer.lossy is not None and bool(tokenizer.lossy.search(text))
    assert is_restored != is_named, f"{text!r} is {tokenizer.decode(ids)!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_restores_all_characters_but_those_named(kind):
    tokenizer = trained(kind)
    for text in texts():
        assert_loses_what_it_names(tokenizer, text, tokenizer.encode(text))


def test_segmentations_with_dropout_restore_the_same_characters():
    tokenizer, random = trained("sentencepiece", False), np.random.default_rng(0)
    kept = [text for text in texts() if "\n" not in text]
    ids, lengths = encode_with_dropout(tokenizer, kept, 0.5, random)
    for text, row in zip(kept, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        assert_loses_what_it_names(tokenizer, text, row.tolist())


class MadeUp:
    splits = {"train": 3, "test": 1}  # noqa: RUF012

    def read(self, split, start=0, stop=None):
        train = [("a\u2581b c", "x  y"), ("b\0", " x"), ("c a", "y\u3000x")]
        return (train if split == "train" else [("c\u2581", "x y")])[start:stop]


def test_characters_that_decoding_loses_are_counted_by_name():
    pieces = train_tokenizer("sentencepiece", ["a b c"], 9, 1)
    words = train_tokenizer("word", ["x y"], 9, 1)
    sides = {"source": pieces, "target": words}
    assert count_lossy_characters(MadeUp(), MadeUp.splits, sides) == {
        "source": {"\u2581": 2, "\0": 1},
        "target": {" ": 2, "\u3000": 1},
    }
    byte = {"source": train_tokenizer("byte", [], 9, 1)}
    assert count_lossy_characters(MadeUp(), MadeUp.splits, byte) == {}
