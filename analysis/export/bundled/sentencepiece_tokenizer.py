"""Tokenizer of a SentencePiece model, by the package of that name."""

import base64

import sentencepiece
from tokenizer import TokenizerBase


class Tokenizer(TokenizerBase):
    """Tokenizer of a SentencePiece model."""

    def __init__(self, content):
        super().__init__(content)
        model = base64.b64decode(content["model"])
        self.model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode_ids(self, text):
        return self.model.encode(text)

    def detokenize(self, ids):
        return self.model.decode(ids)
