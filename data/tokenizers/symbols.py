"""Tokenizers whose tokens are bytes, characters or words."""

import collections
import functools
import re
import sys
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer


class ByteTokenizer(Tokenizer):
    """Tokenizer of UTF-8 bytes, which needs no training."""

    kind: ClassVar = "byte"
    splits_at_spaces: ClassVar = False
    vocab_size = len(SPECIAL) + 256

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        return cls()

    def encode_ids(self, text: str) -> list[int]:
        return [byte + len(SPECIAL) for byte in text.encode()]

    def encode_ids_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.frombuffer(b"".join(encoded), np.uint8)
        return ids.astype(np.uint16) + len(SPECIAL), lengths

    @staticmethod
    def split(text: str) -> list[str]:
        """Returns the bytes as text, U+FFFD where a byte is no character."""
        return [bytes([byte]).decode(errors="replace") for byte in text.encode()]

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text without special tokens; invalid UTF-8 becomes U+FFFD."""
        plain = bytes(i - len(SPECIAL) for i in ids if i >= len(SPECIAL))
        return plain.decode(errors="replace")

    def id_to_token(self, number: int) -> str:
        return SPECIAL[number] if number < len(SPECIAL) else self.detokenize([number])


class ListTokenizer(Tokenizer):
    """Base class of tokenizers with a list of known tokens.

    Attributes:
      symbols: the tokens by id.
      ids: the ids by token. Padding, EOS and BOS are left out, so that a text that
        contains their names cannot produce them.
    """

    joiner: ClassVar[str]

    def __init__(self, symbols: Sequence[str]):
        self.symbols = list(symbols)
        self.vocab_size = len(self.symbols)
        named = (i for i in range(self.vocab_size) if i not in (PAD, EOS, BOS))
        self.ids = {self.symbols[i]: i for i in named}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """Keeps the most frequent tokens; ties in alphabetical order."""
        count = collections.Counter()
        for text in texts:
            count.update(cls.split(text))
        for symbol in SPECIAL:
            count.pop(symbol, None)
        ranked = sorted(count, key=lambda symbol: (-count[symbol], symbol))
        known = [symbol for symbol in ranked if count[symbol] >= min_count]
        return cls([*SPECIAL, *known[: vocab_size - len(SPECIAL)]])

    @classmethod
    def from_tokens(cls, tokens: Iterable[str]):
        """Makes a vocabulary of tokens, after the special ones and without repeats."""
        return cls(list(dict.fromkeys([*SPECIAL, *tokens])))

    @classmethod
    def load(cls, content: dict):
        return cls(content["symbols"])

    def to_dict(self) -> dict:
        return {"symbols": self.symbols}

    def encode_ids(self, text: str) -> list[int]:
        return [self.ids.get(symbol, UNK) for symbol in self.split(text)]

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text, with `<unk>` for unknown tokens."""
        symbols = (self.symbols[i] for i in ids if i not in (PAD, EOS, BOS))
        return self.joiner.join(symbols)

    def id_to_token(self, number: int) -> str:
        return self.symbols[number]

    def token_to_id(self, token: str) -> int | None:
        return self.ids.get(token)


class WordTokenizer(ListTokenizer):
    """Tokenizer of words, which white space separates.

    Names of special tokens in a text become unknown words.
    """

    kind: ClassVar = "word"
    lossy: ClassVar = re.compile(r"[^\S ]|^ |(?<=\s) | \Z")  # all but single spaces
    joiner = " "

    @staticmethod
    def split(text: str) -> list[str]:
        return text.split()


class CharTokenizer(ListTokenizer):
    """Tokenizer of single Unicode characters."""

    kind: ClassVar = "char"
    splits_at_spaces: ClassVar = False
    joiner = ""

    @staticmethod
    def split(text: str) -> list[str]:
        return list(text)

    @functools.cached_property
    def ids_by_code_point(self) -> np.ndarray:
        """Ids of all Unicode code points."""
        table = np.full(sys.maxunicode + 1, UNK, np.int32)
        for symbol, number in self.ids.items():
            if len(symbol) == 1:
                table[ord(symbol)] = number
        return table

    def encode_ids_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        codes = "".join(texts).encode("utf-32-le", "surrogatepass")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return self.ids_by_code_point[np.frombuffer(codes, np.uint32)], lengths
