"""Encoding of lines with masks, and their fillings."""

import numpy as np
import pytest

from data.tokenizers.base import BOS, EOS
from data.tokenizers.build import train_tokenizer
from data.understanding.markers import MARKERS
from tasks.understanding.fill_mask import best_fillings, encode_masked, fill

TEXTS = ["the cat sat on the mat.", "the cats sat, a mat"]
SIZES = {"sentencepiece": 34, "wordpiece": 60, "word": 30, "char": 40, "byte": 260}


def tokenizer(kind):
    return train_tokenizer(kind, TEXTS * 3, SIZES[kind], 1).with_tags(MARKERS)


def restored(kind, line, texts):
    """Returns the tokens of a line with masks replaced by those of texts."""
    one = tokenizer(kind)
    masked = encode_masked(one, 0, line, 99)
    ids, mask = [], one.tags["<mask>"]
    for token in masked.ids[1:-1]:
        ids += [token] if token != mask else texts.pop(0)
    assert (masked.ids[0], masked.ids[-1]) == (BOS, EOS)
    assert [masked.ids[p] for p in masked.positions] == [mask] * line.count("<mask>")
    return ids


@pytest.mark.parametrize("kind", SIZES)
def test_the_text_around_masks_is_encoded_as_in_a_whole_line(kind):
    one = tokenizer(kind)
    word = one.encode("cat")
    inside = restored(kind, "the <mask> sat on the mat.", [word])
    assert inside == one.encode("the cat sat on the mat.")
    assert restored(kind, "<mask> sat", [word]) == one.encode("cat sat")
    assert restored(kind, "the <mask>", [word]) == one.encode("the cat")
    two = restored(kind, "<mask> <mask>", [one.encode("the"), word])
    assert two == one.encode("the cat")
    if kind != "word":
        mat = restored(kind, "the <mask>.", [one.encode("mat")])
        assert mat == one.encode("the mat.")


@pytest.mark.parametrize(
    ("kind", "parts", "piece", "text"),
    [
        ("wordpiece", ["the c", " sat"], "##a", "the ca sat"),
        ("wordpiece", ["the ", " sat"], "c", "the c sat"),
        ("sentencepiece", ["the ", " sat"], "\u2581sat", "the sat sat"),
        ("sentencepiece", ["the", "."], "\u2581sat", "the sat."),
        ("sentencepiece", ["", " sat"], "\u2581sat", "sat sat"),
        ("sentencepiece", ["the ", "."], "s", "thes."),
        ("char", ["the c", "t"], "a", "the cat"),
        ("word", ["the ", " sat"], "cat", "the cat sat"),
    ],
)
def test_a_piece_is_joined_as_its_kind_needs(kind, parts, piece, text):
    one = tokenizer(kind)
    assert fill(one, parts, [one.token_to_id(piece)]) == text


def test_the_best_combinations_are_those_of_largest_product():
    one = tokenizer("word")
    line = encode_masked(one, 0, "<mask> <mask> mat", 99)
    ids = np.asarray([[4, 5, 6], [5, 6, 7], [9, 9, 9]])
    probabilities = np.asarray([[0.5, 0.3, 0.1], [0.6, 0.3, 0.05], [1, 1, 1]])
    found = best_fillings(one, line, probabilities, ids, 3)
    assert [round(score, 6) for _, score in found] == [0.3, 0.18, 0.15]
    words = [one.decode([number]) for number in (4, 5)]
    assert found[0][0] == f"{words[0]} {words[1]} mat"
