"""Text to numbers and back: what all tokenizers share.

All kinds have the same first four numbers: padding, end of sentence, unknown,
beginning of sentence. Tags that name a target language come last.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from data.chunk_text import portions
from data.tokenizers.normalization import AS_IS, TAG, Normalizer
from utils.errors import UserError

SPECIAL = ("<pad>", "<eos>", "<unk>", "<bos>")
PAD, EOS, UNK, BOS = range(len(SPECIAL))


class Tokenizer:
    """What all kinds have in common.

    Attributes:
      normal: what is done to a text first, and undone last.
      tags: words for target languages and their numbers, one number each.
    """

    kind: ClassVar[str] = ""
    recipe: ClassVar[dict] = {}  # what, beside the text, decides the vocabulary
    learns_from: ClassVar[int] = 0  # at most so many characters; 0: all there are
    is_cut_at_spaces: ClassVar[bool] = True  # else a text may be cut anywhere
    pad, eos, unk, bos = PAD, EOS, UNK, BOS
    vocab_size: int
    normal: Normalizer = AS_IS
    unknown: ClassVar[str] = SPECIAL[UNK]  # how `text` shows what was not known
    tags: dict[str, int] = {}  # noqa: RUF012

    def with_normal(self, normal: Normalizer) -> "Tokenizer":
        """The same vocabulary for texts that are normalised otherwise."""
        other = copy.copy(self)
        other.normal = normal
        return other

    def with_tags(self, tags: Iterable[str]) -> "Tokenizer":
        """The vocabulary and one number for each tag: its own there, or a new one."""
        other = copy.copy(self)
        other.tags = {}
        for tag in tags:
            known = self.find(tag)
            other.tags[tag] = other.vocab_size if known is None else known
            other.vocab_size += known is None
        return other

    def find(self, symbol: str) -> int | None:
        """The number of a symbol of the vocabulary; None: it has none."""
        return None

    def shares_vocabulary(self, other: "Tokenizer") -> bool:
        """Whether a number means the same to both."""
        if self is other:
            return True
        is_same = self.kind == other.kind and self.tags == other.tags
        return is_same and self.content() == other.content()

    def parted(self, text: str) -> tuple[list[int], str]:
        """The tag of a text, if it is to have one, and the text, normalised.

        Raises UserError for a tag that the vocabulary does not have.
        """
        text = self.normal.apply(text)
        own = TAG.match(text) if self.tags and self.normal.tag else None
        if own is None:
            return [], text
        if own[1] not in self.tags:
            known = ", ".join(self.tags)
            raise UserError(f"{text[:40]!r}: there is no {own[1]}, but {known}")
        return [self.tags[own[1]]], text[own.end() :]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text."""
        first, text = self.parted(text)
        return [*first, *self.numbers(text)]

    def encode_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all texts behind one another, and how many each has."""
        firsts, plain = zip(*map(self.parted, texts), strict=True)
        return led_by(firsts, *self.numbers_all(plain))

    def encode_long(self, text: str) -> Iterator[np.ndarray]:
        """The numbers of a text, some at a time."""
        first, text = self.parted(text)
        yield np.asarray(first, np.int64)
        for portion in portions(text, self.is_cut_at_spaces):
            yield self.numbers_all([portion])[0]

    def numbers_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`numbers` of all texts behind one another, and how many each has."""
        found = [self.numbers(text) for text in texts]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        numbers = itertools.chain.from_iterable(found)
        return np.fromiter(numbers, np.int64, lengths.sum()), lengths

    def decode(self, ids: Sequence[int]) -> str:
        """The text of numbers; see `text`."""
        tags = self.tags.values()
        return self.normal.undo(self.text([i for i in ids if i not in tags]))

    def words(self, text: str) -> list[str]:
        """What each number of `encode` stands for, known or not."""
        first, text = self.parted(text)
        return [*self.pieces(first), *self.split(text)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A legible name a number."""
        tags = {number: tag for tag, number in self.tags.items()}
        return [tags[int(i)] if int(i) in tags else self.piece(int(i)) for i in ids]


def led_by(
    firsts: Sequence[list[int]], numbers: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Texts as in `numbers_all`, each behind none or one number of its own."""
    added = np.fromiter(map(len, firsts), np.int64, len(firsts))
    if not added.any():
        return numbers, lengths
    starts = (np.cumsum(lengths) - lengths)[added > 0]
    new = [number for first in firsts for number in first]
    return np.insert(numbers, starts, new), lengths + added
