"""Lines of input with masks, and the texts that fill them.

Kinds of tokenizers differ in how a piece is joined to the text around it: a "##" piece
of WordPiece continues the word before, SentencePiece marks the pieces that begin a
word, and characters and bytes are joined as they are.
"""

import dataclasses
import heapq
import re
from collections.abc import Sequence

import numpy as np

from data.tokenizers.base import BOS, EOS, Tokenizer
from data.tokenizers.wordpiece import CONTINUATION, MASK
from tasks.base import ScoredText
from tasks.understanding.base import tell_cut
from utils.errors import UserError

MASKS = re.compile(r"<mask>|\[MASK\]")
SPACE = "\u2581"  # SentencePiece's symbol before each word
MARKED = ("sentencepiece", "unigram")


@dataclasses.dataclass(frozen=True)
class MaskedLine:
    """A line of input with masks.

    Attributes:
      parts: the texts around the masks, one more than there are masks.
      ids: its tokens with BOS and EOS.
      positions: those of the masks.
    """

    parts: list[str]
    ids: list[int]
    positions: list[int]


def encode_masked(
    tokenizer: Tokenizer, number: int, line: str, max_length: int
) -> MaskedLine:
    """Encodes a line, cut to `max_length` tokens.

    Args:
      number: number of the line, from 0.

    Raises:
      UserError: it has no mask, or one that is cut off.
    """
    parts = MASKS.split(line)
    if len(parts) < 2:
        raise UserError(
            f"line {number + 1} of the input has no {MASK} to fill: {line[:40]!r}"
        )
    ids, positions = [BOS], []
    for index, part in enumerate(parts):
        if index:
            positions.append(len(ids))
            ids.append(tokenizer.tags[MASK])
        ids += encode_part(tokenizer, part, index > 0, index < len(parts) - 1)
    if positions[-1] >= max_length - 1:
        raise UserError(
            f"line {number + 1} of the input has a {MASK} beyond its first "
            f"{max_length} tokens, data.max_length"
        )
    tell_cut(number, len(ids) + 1, max_length)
    return MaskedLine(parts, [*ids[: max_length - 1], EOS], positions)


def encode_part(
    tokenizer: Tokenizer, part: str, after: bool, before: bool
) -> list[int]:
    """Encodes the text after or before a mask as it is encoded within a line."""
    if tokenizer.kind not in MARKED:
        return tokenizer.encode(part)
    continues = after and part and not part[0].isspace()
    part = part.removeprefix(" ") if after else part
    part = part.removesuffix(" ") if before else part
    ids = tokenizer.encode(part) if part else []
    if continues and ids:
        piece = tokenizer.pieces(ids[:1])[0]
        inner = tokenizer.token_to_id(piece.removeprefix(SPACE))
        if piece == SPACE:
            return ids[1:]
        return ids if inner is None else [inner, *ids[1:]]
    return ids


def best_fillings(
    tokenizer: Tokenizer,
    line: MaskedLine,
    probabilities: np.ndarray,
    ids: np.ndarray,
    count: int,
) -> list[ScoredText]:
    """Returns the line filled with the most probable combinations of tokens.

    Args:
      probabilities, ids: the best tokens of each mask, descending, [P, count].
    """
    best: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
    for choices, scores in zip(ids, probabilities[: len(line.positions)], strict=False):
        longer = [
            (score * float(p), (*chosen, int(choice)))
            for score, chosen in best
            for p, choice in zip(scores, choices, strict=True)
        ]
        best = heapq.nlargest(count, longer, key=lambda scored: scored[0])
    return [(fill(tokenizer, line.parts, chosen), score) for score, chosen in best]


def fill(tokenizer: Tokenizer, parts: list[str], chosen: Sequence[int]) -> str:
    """Joins the texts around masks with the tokens that fill them."""
    text = parts[0]
    for number, part in zip(chosen, parts[1:], strict=True):
        piece = tokenizer.decode([number])
        if tokenizer.kind == "wordpiece" and piece.startswith(CONTINUATION):
            text, piece = text.rstrip(), piece.removeprefix(CONTINUATION)
        elif tokenizer.kind in MARKED:
            piece = tokenizer.pieces([number])[0]
            if not piece.startswith(SPACE):
                text = text.removesuffix(" ")
            elif text and not text[-1].isspace():
                piece = f" {piece.removeprefix(SPACE)}"
            piece = piece.replace(SPACE, "")
        text += piece + part
    return text
