"""Text as subwords and back, by SentencePiece (Kudo and Richardson 2018)."""

import base64
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from data.chunk_text import portions
from data.tokenizers.base import SPECIAL, UNK, Tokenizer

BREAK = "\n"  # no piece of its own to SentencePiece, unless it is told
PEEKED = 1000  # parts of the text that are looked through for it
LONGEST = 1000  # characters: of longer than 4192 bytes SentencePiece learns nothing


def learnable(text: str) -> Iterator[str]:
    """A text in parts of which SentencePiece learns."""
    for part in portions(text, at_spaces=True, size=LONGEST):
        for short in portions(part, at_spaces=False, size=LONGEST):
            if short:
                yield short


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair encoding (Sennrich et al. 2016) by SentencePiece (Kudo 2018).

    Text is not normalised, so what is decoded is what was encoded, and each digit
    is a piece of its own, so numbers can be copied and changed digit by digit.
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

    unknown: ClassVar = " \N{DOUBLE QUESTION MARK} "

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self.processor.vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_count: int):
        """`vocab_size` pieces, or as many as the text has."""
        import sentencepiece

        parts = (part for text in texts for part in learnable(text))
        first = list(itertools.islice(parts, PEEKED))
        own = [BREAK] if any(BREAK in part for part in first) else []
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain(first, parts),
            user_defined_symbols=own,
            model_writer=model,
            vocab_size=vocab_size,
            minloglevel=2,
            **cls.recipe,
        )
        return cls(model.getvalue())

    @classmethod
    def load(cls, content: dict):
        """From what `content` gave."""
        return cls(base64.b64decode(content["model"]))

    def content(self) -> dict:
        """What `load` needs: the SentencePiece model file, in base 64."""
        return {"model": base64.b64encode(self.model).decode()}

    def numbers(self, text: str) -> list[int]:
        """One number a piece."""
        return self.processor.encode(text)

    def text(self, ids: Sequence[int]) -> str:
        """The text; special numbers are left out, unknown ones shown."""
        return self.processor.decode([int(i) for i in ids])

    def split(self, text: str) -> list[str]:
        """The pieces, without the spaces before them."""
        pieces = self.processor.encode(text, out_type=str)
        return [piece.lstrip("\N{LOWER ONE EIGHTH BLOCK}") for piece in pieces]

    def piece(self, number: int) -> str:
        """A legible name; a space is shown as U+2581."""
        return self.processor.id_to_piece(number)

    def find(self, symbol: str) -> int | None:
        """The number of a symbol of the vocabulary; None: it has none."""
        number = self.processor.piece_to_id(symbol)
        return None if number == UNK else number


class UnigramTokenizer(SentencePieceTokenizer):
    """Unigram language model (Kudo 2018) by SentencePiece."""

    kind: ClassVar = "unigram"
    learns_from: ClassVar = 2**23  # it takes a hundred times its text in memory
    recipe: ClassVar = {**SentencePieceTokenizer.recipe, "model_type": "unigram"}
