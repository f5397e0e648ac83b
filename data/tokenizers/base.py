"""The interface of all tokenizers: text to token ids and back.

The first four ids are the same in every vocabulary: padding, end of sentence, unknown
and beginning of sentence. Tags that name a target language come last.
"""

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from data.tokenizers.normalization import IDENTITY, TAG, Normalizer
from utils.errors import UserError

SPECIAL = ("<pad>", "<eos>", "<unk>", "<bos>")
PAD, EOS, UNK, BOS = range(len(SPECIAL))

CHUNK = 2**18  # characters of a text that are tokenized at once
WORD = re.compile(r"\S+")


class Tokenizer:
    """Base class of all tokenizers.

    A subclass defines `encode_ids`, its inverse `detokenize`, `split` (the text behind
    each id), `id_to_token` (printable names) and `train`; callers use `encode*`,
    `decode`, `words` and `pieces`, which also normalize the text and handle tags.

    Attributes:
      kind: the value of `data.tokenizer` that selects the class.
      recipe: settings, besides the text, that determine a learned vocabulary.
      learns_from: number of characters to learn from at most; 0: all.
      splits_at_spaces: whether long texts may be split between words only.
      vocab_size: number of ids, tags included.
      normalizer: applied to a text before it is tokenized, and undone after decoding.
      lossy: matches each character that decoding does not restore, even if it is in
        the text that the vocabulary was learned from; None: it restores all.
      unknown: text for which `detokenize` writes an unknown token.
      tags: ids of target language tags.
    """

    kind: ClassVar[str] = ""
    recipe: ClassVar[dict] = {}
    learns_from: ClassVar[int] = 0
    splits_at_spaces: ClassVar[bool] = True
    pad, eos, unk, bos = PAD, EOS, UNK, BOS
    vocab_size: int
    normalizer: Normalizer = IDENTITY
    lossy: ClassVar[re.Pattern | None] = None
    unknown: ClassVar[str] = SPECIAL[UNK]
    tags: dict[str, int] = {}  # noqa: RUF012

    def with_normalizer(self, normalizer: Normalizer) -> "Tokenizer":
        """Returns this vocabulary with another normalizer."""
        other = copy.copy(self)
        other.normalizer = normalizer
        return other

    @classmethod
    def load(cls, content: dict) -> "Tokenizer":
        """Restores a tokenizer from `to_dict`."""
        return cls()

    def to_dict(self) -> dict:
        """Returns the vocabulary as JSON."""
        return {}

    def with_tags(self, tags: Iterable[str]) -> "Tokenizer":
        """Returns this vocabulary with an id for each tag, a new one if it lacks it."""
        other = copy.copy(self)
        other.tags = {}
        for tag in tags:
            known = self.token_to_id(tag)
            other.tags[tag] = other.vocab_size if known is None else known
            other.vocab_size += known is None
        return other

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token, or None if the vocabulary lacks it."""
        return None

    def with_token_ids(self) -> "TokenIds":
        """Returns this vocabulary with token ids in place of text."""
        return TokenIds(self)

    def with_text(self) -> "Tokenizer":
        """Returns the tokenizer of text that has this vocabulary."""
        return self

    def shares_vocabulary(self, other: "Tokenizer") -> bool:
        """Returns whether ids mean the same tokens in both tokenizers."""
        return self is other or (
            (self.kind, self.tags) == (other.kind, other.tags)
            and self.to_dict() == other.to_dict()
        )

    def split_tag(self, text: str) -> tuple[list[int], str]:
        """Returns the ids of a text's tag, at most one, and the normalized rest.

        Raises UserError if the vocabulary lacks the tag.
        """
        text = self.normalizer.apply(text)
        match = TAG.match(text) if self.tags and self.normalizer.tag else None
        if match is None:
            return [], text
        if match[1] not in self.tags:
            known = ", ".join(self.tags)
            raise UserError(f"Unknown tag {match[1]} in {text[:40]!r}; choose {known}")
        return [self.tags[match[1]]], text[match.end() :]

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        first, text = self.split_tag(text)
        return [*first, *self.encode_ids(text)]

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the concatenated ids of all texts, and the number of each."""
        firsts, plain = zip(*map(self.split_tag, texts), strict=True)
        return prepend_ids(firsts, *self.encode_ids_batch(plain))

    def encode_long(self, text: str) -> Iterator[np.ndarray]:
        """Yields the token ids of a text, chunk by chunk."""
        first, text = self.split_tag(text)
        yield np.asarray(first, np.int64)
        for chunk in chunk_text(text, self.splits_at_spaces):
            yield self.encode_ids_batch([chunk])[0]

    def encode_ids_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Applies `encode_ids` to all texts; returns the same as `encode_batch`."""
        ids = [self.encode_ids(text) for text in texts]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = itertools.chain.from_iterable(ids)
        return np.fromiter(flat, np.int64, lengths.sum()), lengths

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids, without tags and normalization."""
        tags = self.tags.values()
        return self.normalizer.undo(self.detokenize([i for i in ids if i not in tags]))

    def decode_after(self, prompt: list[int], ids: list[int]) -> str:
        """Returns the text that token ids add to that of a prompt."""
        return self.decode(prompt + ids)[len(self.decode(prompt)) :]

    def words(self, text: str) -> list[str]:
        """Returns the piece of text behind each id of `encode`, unknown or not."""
        first, text = self.split_tag(text)
        return [*self.pieces(first), *self.split(text)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the printable name of each id."""
        tags = {number: tag for tag, number in self.tags.items()}
        return [tags.get(i) or self.id_to_token(i) for i in map(int, ids)]


class TokenIds(Tokenizer):
    """A vocabulary whose text is token ids with spaces between them."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.vocab_size, self.tags = tokenizer.vocab_size, tokenizer.tags

    def with_text(self) -> Tokenizer:
        return self.tokenizer

    def encode(self, text: str) -> list[int]:
        words = text.split()
        if not all(word.isdecimal() and int(word) < self.vocab_size for word in words):
            raise UserError(
                f"{text[:40]!r} must be token ids, numbers of 0 to "
                f"{self.vocab_size - 1} with spaces between them"
            )
        return [int(word) for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def decode_after(self, prompt: list[int], ids: list[int]) -> str:
        del prompt
        return self.decode(ids)


def prepend_ids(
    firsts: Sequence[list[int]], ids: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inserts at most one id before each text of an encoded batch."""
    added = np.fromiter(map(len, firsts), np.int64, len(firsts))
    if not added.any():
        return ids, lengths
    starts = (np.cumsum(lengths) - lengths)[added > 0]
    new = [number for first in firsts for number in first]
    return np.insert(ids, starts, new), lengths + added


def chunk_text(text: str, at_spaces: bool, size: int = CHUNK) -> Iterator[str]:
    """Splits a text into chunks of about `size` characters.

    With `at_spaces` only at a single space between two words, which is dropped.
    """
    start = 0
    while len(text) - start > size:
        end = _find_single_space(text, start + size) if at_spaces else start + size
        if end < 0:
            break
        yield text[start:end]
        start = end + at_spaces
    yield text[start:]


def _find_single_space(text: str, start: int) -> int:
    """Returns the index of the first space from `start` between two words, or -1."""
    index = text.find(" ", start)
    while index > 0 and (
        text[index - 1].isspace() or text[index + 1 : index + 2].isspace()
    ):
        index = text.find(" ", index + 1)
    return index if index < len(text) - 1 else -1


def num_words(text: str) -> int:
    """Returns `len(text.split())` without building the list for long texts."""
    if len(text) <= CHUNK:
        return len(text.split())
    return sum(1 for _ in WORD.finditer(text))
