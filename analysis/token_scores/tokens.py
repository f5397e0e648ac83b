"""Text behind each token, and the spans of text that two tokenizers share."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from data.tokenizers.base import UNK, Tokenizer
from data.tokenizers.normalization import strip_accents
from data.tokenizers.wordpiece import CONTINUATION

WORD_BEGIN = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's symbol before each word
END = "<eos>"
VISIBLE = str.maketrans(
    {
        " ": "\N{OPEN BOX}",
        WORD_BEGIN: "\N{OPEN BOX}",
        "\n": "\N{RETURN SYMBOL}",
        "\t": "\N{RIGHTWARDS ARROW TO BAR}",
    }
)


class Piece(NamedTuple):
    """The text of one token.

    Attributes:
      text: what is shown, an unknown token as it is in the text.
      has_gap: whether a space that belongs to no token is before it.
      characters: those that it completes, without white space.
    """

    text: str
    has_gap: bool
    characters: str


Spans = list[tuple[int, int]]  # ends of each span, in tokens of either run


def token_pieces(tokenizer: Tokenizer, text: str) -> list[Piece]:
    """Returns the text of each token of `tokenizer.encode(text)`."""
    if tokenizer.kind == "byte":
        return _byte_pieces(text=tokenizer.normalizer.apply(text))
    ids, words = tokenizer.encode(text), tokenizer.words(text)
    if tokenizer.kind in ("sentencepiece", "unigram"):
        shown = map(_sentencepiece_text, ids, tokenizer.pieces(ids), words)
        return [Piece(one, False, _squeeze(one)) for one in shown]
    if tokenizer.kind == "char":
        return [Piece(one, False, _squeeze(one)) for one in words]
    continues = [False] * len(ids)
    if tokenizer.kind == "wordpiece":
        continues = [piece.startswith(CONTINUATION) for piece in tokenizer.pieces(ids)]
    return [
        Piece(word, index > 0 and not continues[index], _squeeze(word))
        for index, word in enumerate(words)
    ]


def _byte_pieces(text: str) -> list[Piece]:
    """Returns a piece for each byte; a character belongs to its last byte."""
    decoder, pieces = codecs.getincrementaldecoder("utf8")(), []
    for byte in text.encode():
        character = decoder.decode(bytes([byte]))
        shown = character or f"\\x{byte:02x}"
        pieces.append(Piece(shown, False, _squeeze(character)))
    return pieces


def _sentencepiece_text(number: int, piece: str, word: str) -> str:
    """Returns a piece with its spaces, an unknown one as it is in the text."""
    num_spaces = len(piece) - len(piece.lstrip(WORD_BEGIN)) if number != UNK else 0
    return " " * num_spaces + word.replace(WORD_BEGIN, " ")


def _squeeze(text: str) -> str:
    return "".join(text.split())


def show(text: str) -> str:
    """Makes white space visible."""
    return text.translate(VISIBLE)


def align_words(
    first: Sequence[Piece], second: Sequence[Piece], texts: Sequence[str]
) -> Spans | None:
    """Returns the shortest spans of whole words that both runs have tokens for.

    White space belongs to the word after it. All tokens are in a span.

    Args:
      texts: the text as either tokenizer normalizes it.

    Returns:
      The spans, or None where the characters of both runs differ in more than case
      and accents.
    """
    streams = ["".join(one.characters for one in side) for side in (first, second)]
    plain = [strip_accents(stream).lower() for stream in streams]
    if plain[0] != plain[1] or len(streams[0]) != len(streams[1]):
        return None
    ends = _token_ends(first), _token_ends(second)
    common = ends[0].keys() & ends[1].keys()
    common &= _word_ends(texts[0]) & _word_ends(texts[1])
    spans = [(ends[0][place], ends[1][place]) for place in sorted(common)]
    # White space after the last word, and a text whose last words are not shared.
    return [*spans[:-1], (len(first), len(second))]


def _token_ends(pieces: Sequence[Piece]) -> dict[int, int]:
    """Maps a number of characters to the number of tokens that complete them."""
    ends, total = {}, 0
    for index, piece in enumerate(pieces, start=1):
        if piece.characters:
            total += len(piece.characters)
            ends[total] = index
    return ends


def _word_ends(text: str) -> set[int]:
    """Returns the number of characters before the end of each word."""
    ends, total = set(), 0
    for word in text.split():
        total += len(word)
        ends.add(total)
    return ends
