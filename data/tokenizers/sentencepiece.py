"""Subword tokenizers learned by SentencePiece (Kudo and Richardson 2018)."""

import base64
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from data.tokenizers.base import SPECIAL, UNK, Tokenizer, chunk_text

LINE_BREAK = "\n"  # SentencePiece has no piece for it unless told
PEEKED = 1000  # parts of the text that are searched for line breaks
LONGEST = 1000  # characters: SentencePiece skips sentences above 4192 bytes


def learnable(text: str) -> Iterator[str]:
    """Splits a text into parts short enough for SentencePiece to learn from."""
    for part in chunk_text(text, at_spaces=True, size=LONGEST):
        yield from filter(None, chunk_text(part, at_spaces=False, size=LONGEST))


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair encoding (Sennrich et al. 2016) by SentencePiece.

    SentencePiece does not normalize the text, so decoding restores it exactly, but for
    four characters that SentencePiece reserves (`lossy`). Each digit is a piece, so
    that a model can copy and change numbers digit by digit.

    Attributes:
      model: the serialized SentencePiece model.
    """

    kind: ClassVar = "sentencepiece"
    learns_from: ClassVar = 2**26
    recipe: ClassVar = {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "character_coverage": 1.0,
        "hard_vocab_limit": False,
        "num_threads": 1,
        **{f"{name[1:-1]}_id": number for number, name in enumerate(SPECIAL)},
        **{f"{name[1:-1]}_piece": name for name in SPECIAL},
    }

    # The space's own symbol becomes a space; the others never are in a piece.
    lossy: ClassVar = re.compile("[\u2581\0\x1f\u2585]")
    unknown: ClassVar = " \N{DOUBLE QUESTION MARK} "

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self.processor.vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """Learns `vocab_size` pieces, or fewer where the text has no more."""
        import sentencepiece

        parts = (part for text in texts for part in learnable(text))
        first = list(itertools.islice(parts, PEEKED))
        has_line_breaks = any(LINE_BREAK in part for part in first)
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain(first, parts),
            user_defined_symbols=[LINE_BREAK] if has_line_breaks else [],
            model_writer=model,
            vocab_size=vocab_size,
            minloglevel=2,
            **cls.recipe,
        )
        return cls(model.getvalue())

    @classmethod
    def load(cls, content: dict):
        return cls(base64.b64decode(content["model"]))

    def to_dict(self) -> dict:
        return {"model": base64.b64encode(self.model).decode()}

    def encode_ids(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text without special tokens, `unknown` for unknown pieces."""
        return self.processor.decode([int(i) for i in ids])

    def split(self, text: str) -> list[str]:
        """Returns the pieces of a text, without the spaces before them."""
        pieces = self.processor.encode(text, out_type=str)
        return [piece.lstrip("\N{LOWER ONE EIGHTH BLOCK}") for piece in pieces]

    def id_to_token(self, number: int) -> str:
        return self.processor.id_to_piece(number)

    def token_to_id(self, token: str) -> int | None:
        number = self.processor.piece_to_id(token)
        return None if number == UNK else number


class UnigramTokenizer(SentencePieceTokenizer):
    """Unigram language model (Kudo 2018) by SentencePiece."""

    kind: ClassVar = "unigram"
    learns_from: ClassVar = 2**23  # training takes 100 times its text in memory
    recipe: ClassVar = {**SentencePieceTokenizer.recipe, "model_type": "unigram"}
