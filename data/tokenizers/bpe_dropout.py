"""BPE-dropout (Provilkov et al. 2020): several random segmentations of training pairs.

Each merge of byte-pair encoding (Sennrich et al. 2016) is skipped with some
probability, so a sentence gets other pieces each time. The training split is tokenized
`data.bpe_dropout_copies` times in advance, and epochs use these segmentations in
rotation. Evaluation uses the ordinary segmentation.

SentencePiece can skip merges too, but its random numbers differ between processes
whatever the seed. Here all words of one length are the rows of a matrix, and each step
merges one pair of neighbours in every row.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from data.storage import short_hash
from data.tokenizers.base import UNK, Tokenizer, prepend_ids
from data.tokenizers.sentencepiece import SentencePieceTokenizer
from utils.errors import UserError

NO_MERGE = np.iinfo(np.int32).max  # the rank of two neighbours that do not merge
EMPTY = -1  # after the last symbol of a row
WORD = re.compile("\u2581?[^\u2581]*", re.DOTALL)  # U+2581 is SentencePiece's space


@dataclasses.dataclass(frozen=True)
class BPEDropout:
    """One random segmentation of the training split."""

    probability: float  # of skipping a merge
    seed: int  # of all segmentations
    copy: int  # number of this one

    @property
    def name(self) -> str:
        """Name of the segmentation, for its folder."""
        return f"dropout-{short_hash(self.probability, self.seed)}-{self.copy}"

    def sampler(self, tokenizer: Tokenizer, *position: int) -> "Sampler":
        """Returns a sampler whose random numbers depend on `position` and the seed."""
        random = np.random.default_rng([self.seed, self.copy, *position])
        return Sampler(tokenizer, self.probability, random)


class Sampler:
    """Tokenizer that skips merges at random; a long text is a single chunk."""

    def __init__(
        self,
        tokenizer: SentencePieceTokenizer,
        probability: float,
        random: np.random.Generator,
    ):
        self.tokenizer, self.vocab_size = tokenizer, tokenizer.vocab_size
        self.probability, self.random = probability, random

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        firsts, plain = zip(*map(self.tokenizer.split_tag, texts), strict=True)
        ids = encode_with_dropout(self.tokenizer, plain, self.probability, self.random)
        return prepend_ids(firsts, *ids)

    def encode_long(self, text: str) -> Iterator[np.ndarray]:
        yield self.encode_batch([text])[0]


def make_segmentations(
    cfg: ConfigDict, kind: str, tokenizers: dict[str, Tokenizer]
) -> list[BPEDropout]:
    """Returns the segmentations to train on, by the experiment's `cfg.data`.

    Raises UserError if a setting is out of range, or the tokenizers have no merges.
    """
    probability, copies = cfg.bpe_dropout, cfg.bpe_dropout_copies
    setting = f"data.bpe_dropout={probability}"
    if not 0 < probability < 1:
        raise UserError(f"{setting}: it must be at least 0 and less than 1")
    if copies < 1:
        raise UserError(f"data.bpe_dropout_copies={copies}: it must be 1 or more")
    if kind != "parallel":
        raise UserError(f"{setting} needs a parallel corpus, and this is a text")
    if cfg.document_order:
        raise UserError(
            f"{setting} excludes data.document_order=True: unset one of them"
        )
    for tokenizer in tokenizers.values():
        if tokenizer.kind != SentencePieceTokenizer.kind:
            raise UserError(
                f"{setting} skips merges of byte-pair encoding, of which "
                f"data.tokenizer={cfg.tokenizer!r} has none: use 'sentencepiece'"
            )
        try:
            load_merges(tokenizer.model)
        except UserError as error:
            message = f"{setting}, data.vocabulary={cfg.vocabulary}: {error}"
            raise UserError(message) from None
    return [BPEDropout(probability, cfg.seed, copy) for copy in range(copies)]


class Merges:
    """The merges of a SentencePiece BPE model; lower ranks merge first.

    Raises UserError if the model was not learned by byte-pair encoding, or has pieces
    that no merge yields.

    Attributes:
      size: number of pieces.
      characters: id of each code point that is a piece, else UNK.
      by_rank: id of the piece that each merge yields.
      keys: `left * size + right` of each merge, ascending.
      ranks: rank of the merge of each key.
    """

    def __init__(self, model: bytes):
        from sentencepiece import sentencepiece_model_pb2 as schema

        proto = schema.ModelProto.FromString(model)
        types = schema.ModelProto.SentencePiece
        if proto.trainer_spec.model_type != schema.TrainerSpec.BPE:
            raise UserError("the vocabulary was not learned by byte-pair encoding")
        present = {piece.type for piece in proto.pieces}
        if not present <= {types.NORMAL, types.UNKNOWN, types.CONTROL}:
            raise UserError("the vocabulary has pieces that no merge yields")
        learned = [(i, p) for i, p in enumerate(proto.pieces) if p.type == types.NORMAL]
        learned.sort(key=lambda numbered: -numbered[1].score)
        ids = {piece.piece: i for i, piece in learned}
        self.size = len(proto.pieces)
        self.by_rank = np.asarray([i for i, _ in learned], np.int32)
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
        """Returns the ranks of merges of neighbours, NO_MERGE where there is none."""
        if not len(self.keys):
            return np.full(left.shape, NO_MERGE, np.int32)
        key = left.astype(np.int64) * self.size + right
        index = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        is_merge = (self.keys[index] == key) & (right != EMPTY) & (left != EMPTY)
        return np.where(is_merge, self.ranks[index], NO_MERGE)

    def segment(
        self, words: list[str], probability: float, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segments words by algorithm 1 of Provilkov et al. (2020).

        Before each merge, every possible merge is skipped with the given probability;
        a word is finished when none is left. Returns the concatenated ids of all words,
        and the number of each.
        """
        codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
        symbols = self.characters[codes]
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        starts = np.cumsum(lengths) - lengths
        counts, is_used = lengths.copy(), np.ones(len(symbols), bool)
        for length in np.unique(lengths):
            if length > 1:
                rows = np.flatnonzero(lengths == length)
                indices = starts[rows][:, None] + np.arange(length)
                merged = self._merge(symbols[indices], probability, random)
                symbols[indices], is_used[indices] = merged, merged != EMPTY
                counts[rows] = (merged != EMPTY).sum(axis=1)
        return symbols[is_used], counts

    def _merge(self, symbols, probability, random) -> np.ndarray:
        """Merges words of one length, one per row, until no merge is left."""
        width = symbols.shape[1]
        ranks = self.rank(symbols[:, :-1], symbols[:, 1:])
        rows = np.arange(len(symbols))
        for length in range(width, 1, -1):
            candidates = ranks[rows, : length - 1]
            if probability:
                sample = random.random(candidates.shape, np.float32)
                candidates = np.where(sample < probability, NO_MERGE, candidates)
            column = candidates.argmin(axis=1)  # the leftmost of equal ranks
            rank = candidates[np.arange(len(rows)), column]
            can_merge = rank != NO_MERGE
            rows, column, rank = rows[can_merge], column[can_merge], rank[can_merge]
            symbols[rows] = _delete_column(symbols[rows], column + 1, EMPTY)
            symbols[rows, column] = self.by_rank[rank]
            ranks[rows] = _delete_column(ranks[rows], column, NO_MERGE)
            for first in (column - 1, column):
                inside = (first >= 0) & (first < width - 1)
                row, left = rows[inside], first[inside]
                ranks[row, left] = self.rank(symbols[row, left], symbols[row, left + 1])
        return symbols


def _delete_column(rows: np.ndarray, column: np.ndarray, fill: int) -> np.ndarray:
    """Deletes one entry of each row and appends `fill`."""
    shifted = np.full_like(rows, fill)
    shifted[:, :-1] = rows[:, 1:]
    return np.where(np.arange(rows.shape[1]) >= column[:, None], shifted, rows)


@functools.lru_cache(maxsize=2)
def load_merges(model: bytes) -> Merges:
    """Returns the merges of a serialized model, cached."""
    return Merges(model)


def encode_with_dropout(
    tokenizer: SentencePieceTokenizer,
    texts: Sequence[str],
    probability: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the concatenated ids of normalized texts, and the number of each."""
    split = [WORD.findall(tokenizer.processor.normalize(text))[:-1] for text in texts]
    words = [word for text in split for word in text]
    symbols, counts = load_merges(tokenizer.model).segment(words, probability, random)
    text_of_word = np.repeat(np.arange(len(texts)), [len(text) for text in split])
    text = np.repeat(text_of_word, counts)
    # SentencePiece has one id for a run of unknown characters.
    repeats = (symbols[1:] == UNK) & (symbols[:-1] == UNK) & (text[1:] == text[:-1])
    keep = np.concatenate([[True], ~repeats])[: len(symbols)]
    return symbols[keep], np.bincount(text[keep], minlength=len(texts))
