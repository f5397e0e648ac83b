"""Tokenizer of a SentencePiece model, for texts with masks."""

import sentencepiece_tokenizer
from tokenizer import UNK

SPACE = "\u2581"  # SentencePiece's symbol before each word


class Tokenizer(sentencepiece_tokenizer.Tokenizer):
    """Tokenizer of the parts of texts between masks."""

    def encode_part(self, part, after, before):
        continues = after and part and not part[0].isspace()
        part = part.removeprefix(" ") if after else part
        part = part.removesuffix(" ") if before else part
        ids = self.encode(part) if part else []
        if not continues or not ids:
            return ids
        piece = self.model.id_to_piece(ids[0])
        inner = self.model.piece_to_id(piece.removeprefix(SPACE))
        if piece == SPACE:
            return ids[1:]
        return ids if inner == UNK else [inner, *ids[1:]]

    def join(self, text, number):
        piece = self.model.id_to_piece(number)
        if not piece.startswith(SPACE):
            text = text.removesuffix(" ")
        elif text and not text[-1].isspace():
            piece = f" {piece.removeprefix(SPACE)}"
        return text + piece.replace(SPACE, "")
