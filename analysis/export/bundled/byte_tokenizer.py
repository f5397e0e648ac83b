"""Tokenizer of UTF-8 bytes."""

from tokenizer import BOS, TokenizerBase


class Tokenizer(TokenizerBase):
    """Tokenizer of UTF-8 bytes."""

    def encode_ids(self, text):
        return [byte + BOS + 1 for byte in text.encode()]

    def detokenize(self, ids):
        return bytes(i - BOS - 1 for i in ids if i > BOS).decode(errors="replace")
