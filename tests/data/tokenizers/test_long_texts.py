"""Tokenization of long texts in chunks."""

import functools

import numpy as np
import pytest

from data.token_writer import SideWriter
from data.tokenizers.base import CHUNK, EOS, UNK, chunk_text, num_words
from data.tokenizers.build import train_tokenizer
from data.tokenizers.sentencepiece import LONGEST, learnable

RANDOM = np.random.default_rng(2)
WORDS = ["the", "cat", "über", "東京", "x1\u2028y", "a" * 30, "12,5", "\tsat", "on\n"]
SPACES = np.asarray([" ", "  ", " ", "\n", "\t ", " "])
LONG = "".join(
    word + space
    for word, space in zip(
        RANDOM.choice(WORDS, 70_000), RANDOM.choice(SPACES, 70_000), strict=True
    )
)
SIZES = {"byte": 260, "char": 60, "word": 20, "sentencepiece": 60, "unigram": 43}
SIZES["wordpiece"] = 60


@functools.cache
def tokenizer(kind):
    return train_tokenizer(kind, [LONG[:4000]], SIZES[kind], 1)


@pytest.mark.parametrize("kind", SIZES)
class TestTokenizers:
    def test_a_long_text_in_chunks_has_the_same_ids_as_at_once(self, kind):
        assert len(LONG) > 1.2 * CHUNK
        side = SideWriter(tokenizer(kind))
        side.add_all(["the cat", LONG, ""])
        one = tokenizer(kind).encode
        expected = [*one("the cat"), EOS, *one(LONG), EOS, EOS]
        if kind == "unigram":  # of two segmentations as likely either may come
            assert len(side.tokens) == len(expected)
            long = side.tokens[side.lengths[0] :]
            assert tokenizer(kind).decode(long) == LONG
        else:
            np.testing.assert_array_equal(side.tokens, expected)
        assert list(side.lengths) == [len(one("the cat")) + 1, len(one(LONG)) + 1, 1]
        assert side.counts["words"] == 2 + len(LONG.split()) + 3
        assert side.counts["size"] == 7 + len(LONG.encode()) + 3

    def test_a_batch_of_texts_has_the_same_ids_as_each_text(self, kind):
        texts = ["the cat", "", "ß 東京 ☃", "a  b ", "\U0001f600 12,5"]
        numbers, lengths = tokenizer(kind).encode_batch(texts)
        rows = np.split(numbers, np.cumsum(lengths)[:-1])
        assert [r.tolist() for r in rows] == [tokenizer(kind).encode(t) for t in texts]
        assert (UNK in numbers) is (kind != "byte")


@pytest.mark.parametrize("text", ["", "abc", "a  bc d\t ef \n g hij k", " ", "  ab "])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_chunks_joined_are_the_text(text, size):
    assert "".join(chunk_text(text, False, size)) == text
    assert all(len(part) <= size for part in chunk_text(text, False, size))
    assert " ".join(chunk_text(text, True, size)) == text
    for part in list(chunk_text(text, True, size))[1:]:
        assert not part[0].isspace()


def test_words_of_a_long_text_are_counted_as_python_splits_them():
    text = LONG + "\x1c\x85\u3000x\u00a0y\u200bz " * 10
    assert num_words(text) == len(text.split())


def test_no_part_of_a_text_is_too_long_for_sentencepiece():
    parts = list(learnable("東" * 5000 + " " + "word " * 2000))
    assert max(len(part.encode()) for part in parts) <= 4 * LONGEST
    assert sum(map(len, parts)) > 14_900
    assert tokenizer("sentencepiece").vocab_size == SIZES["sentencepiece"]


def test_no_space_is_lost():
    for text in ("  def  f(x):   ", " ", "\tthe  cat ", "the\n\n  cat\n"):
        known = train_tokenizer("sentencepiece", [text, "def f(x): the cat"], 19, 1)
        assert known.decode(known.encode(text)) == text
        assert UNK not in known.encode(text)
