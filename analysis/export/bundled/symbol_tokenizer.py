"""Tokenizer of characters or of words."""

from tokenizer import BOS, EOS, PAD, UNK, TokenizerBase


class Tokenizer(TokenizerBase):
    """Tokenizer with a list of characters, words or pieces of words."""

    def __init__(self, content):
        super().__init__(content)
        self.joiner = "" if content["kind"] == "char" else " "
        self.symbols, hidden = content["symbols"], (PAD, EOS, BOS)
        self.ids = {s: i for i, s in enumerate(self.symbols) if i not in hidden}

    def encode_ids(self, text):
        parts = text.split() if self.joiner else text
        return [self.ids.get(part, UNK) for part in parts]

    def detokenize(self, ids):
        parts = [self.symbols[i] for i in ids if i not in (PAD, EOS, BOS)]
        return self.joiner.join(parts)
