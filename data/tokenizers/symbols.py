"""Text as symbols and back: bytes, characters or words."""

import collections
import functools
import sys
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes; nothing is unknown."""

    kind: ClassVar = "byte"
    is_cut_at_spaces: ClassVar = False
    vocab_size = len(SPECIAL) + 256

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """There is nothing to learn."""
        return cls()

    @classmethod
    def load(cls, content: dict):
        """From what `content` gave."""
        return cls()

    def content(self) -> dict:
        """What `load` needs."""
        return {}

    def numbers(self, text: str) -> list[int]:
        """One number a byte."""
        return [byte + len(SPECIAL) for byte in text.encode()]

    def numbers_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer`."""
        found = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        numbers = np.frombuffer(b"".join(found), np.uint8)
        return numbers.astype(np.uint16) + len(SPECIAL), lengths

    @staticmethod
    def split(text: str) -> list[str]:
        """The bytes, each as U+FFFD where it is no character."""
        return [bytes([byte]).decode(errors="replace") for byte in text.encode()]

    def text(self, ids: Sequence[int]) -> str:
        """The text; a broken character becomes U+FFFD, special numbers nothing."""
        plain = bytes(i - len(SPECIAL) for i in ids if i >= len(SPECIAL))
        return plain.decode(errors="replace")

    def piece(self, number: int) -> str:
        """A legible name."""
        return SPECIAL[number] if number < len(SPECIAL) else self.text([number])


class ListTokenizer(Tokenizer):
    """A list of known symbols; subclasses say how text falls into symbols."""

    joiner: ClassVar[str]

    def __init__(self, symbols: Sequence[str]):
        self.symbols = list(symbols)
        self.vocab_size = len(self.symbols)
        # A text that names another special symbol does not end or pad anything.
        named = (i for i in range(self.vocab_size) if i not in (PAD, EOS, BOS))
        self.ids = {self.symbols[i]: i for i in named}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """The most frequent symbols, ties in alphabetical order."""
        count = collections.Counter()
        for text in texts:
            count.update(cls.split(text))
        for symbol in SPECIAL:
            count.pop(symbol, None)
        ranked = sorted(count, key=lambda symbol: (-count[symbol], symbol))
        known = [symbol for symbol in ranked if count[symbol] >= min_count]
        return cls([*SPECIAL, *known[: vocab_size - len(SPECIAL)]])

    @classmethod
    def load(cls, content: dict):
        """From what `content` gave."""
        return cls(content["symbols"])

    def content(self) -> dict:
        """What `load` needs."""
        return {"symbols": self.symbols}

    def numbers(self, text: str) -> list[int]:
        """One number a symbol, UNK for those not known."""
        return [self.ids.get(symbol, UNK) for symbol in self.split(text)]

    def text(self, ids: Sequence[int]) -> str:
        """The text, `<unk>` where a symbol was not known."""
        kept = (i for i in ids if i not in (PAD, EOS, BOS))
        return self.joiner.join(self.symbols[i] for i in kept)

    def piece(self, number: int) -> str:
        """A legible name."""
        return self.symbols[number]

    def find(self, symbol: str) -> int | None:
        """The number of a symbol of the vocabulary; None: it has none."""
        return self.ids.get(symbol)


class WordTokenizer(ListTokenizer):
    """What stands between white space. Special words in a text are unknown ones."""

    kind: ClassVar = "word"
    joiner = " "

    @staticmethod
    def split(text: str) -> list[str]:
        """The words."""
        return text.split()


class CharTokenizer(ListTokenizer):
    """Unicode characters."""

    kind: ClassVar = "char"
    is_cut_at_spaces: ClassVar = False
    joiner = ""

    @staticmethod
    def split(text: str) -> list[str]:
        """The characters."""
        return list(text)

    @functools.cached_property
    def numbers_by_code(self) -> np.ndarray:
        """The number of every character there can be."""
        table = np.full(sys.maxunicode + 1, UNK, np.int32)
        for symbol, number in self.ids.items():
            if len(symbol) == 1:
                table[ord(symbol)] = number
        return table

    def numbers_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer`."""
        codes = "".join(texts).encode("utf-32-le", "surrogatepass")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return self.numbers_by_code[np.frombuffer(codes, np.uint32)], lengths
