"""Tokenizer of BERT, WordPiece."""

import unicodedata

import symbol_tokenizer
from tokenizer import UNK

ASCII_SYMBOLS = "$+<=>^`|~"  # punctuation for BERT, not for Unicode
CHINESE = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF)),
    *((0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
MAX_WORD = 100  # characters; WordPiece does not know longer words


def separate(c: str) -> str:
    """Removes control characters, and puts spaces around words of one character."""
    kind = unicodedata.category(c)
    if c in "\0\ufffd" or (kind in ("Cc", "Cf") and c not in "\t\n\r"):
        return ""
    alone = c in ASCII_SYMBOLS or kind.startswith("P")
    alone = alone or any(low <= ord(c) <= high for low, high in CHINESE)
    return f" {c} " if alone else c


class Tokenizer(symbol_tokenizer.Tokenizer):
    """The longest pieces of each word from left to right."""

    def encode_ids(self, text):
        unknown = self.symbols[UNK]
        parts = ["".join(map(separate, part)) for part in text.split(unknown)]
        words = f" {unknown} ".join(parts).split()
        return [number for word in words for number in self.encode_word(word)]

    def encode_word(self, word):
        ids, start, prefix = [], 0, ""
        while start < len(word) <= MAX_WORD:
            end = len(word)
            while end > start and prefix + word[start:end] not in self.ids:
                end -= 1
            if end == start:
                return [UNK]
            ids.append(self.ids[prefix + word[start:end]])
            start, prefix = end, "##"
        return ids or [UNK]

    def detokenize(self, ids):
        return super().detokenize(ids).replace(" ##", "")

    def join(self, text, number):
        piece = self.decode([number])
        return text.rstrip() + piece[2:] if piece.startswith("##") else text + piece
