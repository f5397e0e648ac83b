"""Byte-pair encoding (Sennrich et al. 2016) of many words, some merges left out.

SentencePiece can leave out merges too, but what it draws differs from process to
process whatever seed it gets. Here all words of one length are the rows of a matrix,
in which each step merges one pair of neighbours a row.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np

from data.tokenizers.base import UNK
from data.tokenizers.sentencepiece_model import SentencePieceTokenizer
from utils.errors import UserError

NONE = np.iinfo(np.int32).max  # the rank of two neighbours that do not merge
EMPTY = -1  # behind a row's last symbol
WORD = re.compile("\u2581?[^\u2581]*", re.DOTALL)  # U+2581 is SentencePiece's space


class Merges:
    """The merges of a SentencePiece model, the better the lower their rank.

    Raises UserError for a model that was not learnt by byte-pair encoding, or has
    pieces of other kinds beside those it learnt.
    """

    def __init__(self, model: bytes):
        from sentencepiece import sentencepiece_model_pb2 as schema

        found = schema.ModelProto.FromString(model)
        kinds = schema.ModelProto.SentencePiece
        if found.trainer_spec.model_type != schema.TrainerSpec.BPE:
            raise UserError("the vocabulary was not learnt by byte-pair encoding")
        others = {piece.type for piece in found.pieces}
        if not others <= {kinds.NORMAL, kinds.UNKNOWN, kinds.CONTROL}:
            raise UserError("the vocabulary has pieces that merge in no order")
        learnt = [(i, p) for i, p in enumerate(found.pieces) if p.type == kinds.NORMAL]
        learnt.sort(key=lambda numbered: -numbered[1].score)
        ids = {piece.piece: i for i, piece in learnt}
        self.size = len(found.pieces)
        self.by_rank = np.asarray([i for i, _ in learnt], np.int32)
        self.characters = np.full(0x110000, UNK, np.int32)
        for piece, number in ids.items():
            if len(piece) == 1:
                self.characters[ord(piece)] = number
        pairs = {
            ids[text[:cut]] * self.size + ids[text[cut:]]: rank
            for rank, text in enumerate(ids)
            for cut in range(1, len(text))
            if text[:cut] in ids and text[cut:] in ids
        }
        self.keys = np.asarray(sorted(pairs), np.int64)
        self.ranks = np.asarray([pairs[key] for key in self.keys.tolist()], np.int32)

    def rank(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Of the merge of two symbols, NONE where there is none."""
        if not len(self.keys):
            return np.full(left.shape, NONE, np.int32)
        key = left.astype(np.int64) * self.size + right
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        is_one = (self.keys[place] == key) & (right != EMPTY) & (left != EMPTY)
        return np.where(is_one, self.ranks[place], NONE)

    def segment(
        self, words: list[str], probability: float, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The symbols of all words behind one another, and how many each has.

        As algorithm 1 of Provilkov et al. (2020): before each merge each possible one
        is left out with this probability, and a word is done when none is left.
        """
        codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
        symbols = self.characters[codes]
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        starts = np.cumsum(lengths) - lengths
        counts, alive = lengths.copy(), np.ones(len(symbols), bool)
        for length in np.unique(lengths):
            if length > 1:
                rows = np.flatnonzero(lengths == length)
                places = starts[rows][:, None] + np.arange(length)
                merged = self._merge(symbols[places], probability, random)
                symbols[places], alive[places] = merged, merged != EMPTY
                counts[rows] = (merged != EMPTY).sum(axis=1)
        return symbols[alive], counts

    def _merge(self, symbols, probability, random) -> np.ndarray:
        """Words of one length, a row each, until none has a merge left."""
        width = symbols.shape[1]
        ranks = self.rank(symbols[:, :-1], symbols[:, 1:])
        rows = np.arange(len(symbols))
        for wide in range(width, 1, -1):
            offered = ranks[rows, : wide - 1]
            if probability:
                drawn = random.random(offered.shape, np.float32)
                offered = np.where(drawn < probability, NONE, offered)
            place = offered.argmin(axis=1)  # the first of equal ones
            rank = offered[np.arange(len(rows)), place]
            goes = rank != NONE
            rows, place, rank = rows[goes], place[goes], rank[goes]
            symbols[rows] = closed(symbols[rows], place + 1, EMPTY)
            symbols[rows, place] = self.by_rank[rank]
            ranks[rows] = closed(ranks[rows], place, NONE)
            for first in (place - 1, place):
                inside = (first >= 0) & (first < width - 1)
                at, column = rows[inside], first[inside]
                pair = symbols[at, column], symbols[at, column + 1]
                ranks[at, column] = self.rank(*pair)
        return symbols


def closed(rows: np.ndarray, place: np.ndarray, end: int) -> np.ndarray:
    """Rows without what stands at `place`; what follows moves up, `end` comes in."""
    moved = np.full_like(rows, end)
    moved[:, :-1] = rows[:, 1:]
    return np.where(np.arange(rows.shape[1]) >= place[:, None], moved, rows)


@functools.lru_cache(maxsize=2)
def merges_of(model: bytes) -> Merges:
    """The same for the same model."""
    return Merges(model)


def encode_dropped(
    tokenizer: SentencePieceTokenizer,
    texts: Sequence[str],
    probability: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised texts as numbers behind one another, and how many each has."""
    split = [WORD.findall(tokenizer.processor.normalize(text))[:-1] for text in texts]
    words = [word for text in split for word in text]
    symbols, counts = merges_of(tokenizer.model).segment(words, probability, random)
    text_of_word = np.repeat(np.arange(len(texts)), [len(text) for text in split])
    text = np.repeat(text_of_word, counts)
    # SentencePiece gives one number for a run of unknown characters.
    again = (symbols[1:] == UNK) & (symbols[:-1] == UNK) & (text[1:] == text[:-1])
    kept = np.concatenate([[True], ~again])[: len(symbols)]
    return symbols[kept], np.bincount(text[kept], minlength=len(texts))
