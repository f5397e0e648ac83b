"""Text to numbers and back: words, characters, bytes, or subwords.

All kinds share the first four numbers: padding, end of sentence, unknown,
beginning of sentence.
"""

import base64
import collections
import copy
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from data.normalization import AS_IS, Normalizer
from errors import UserError

SPECIAL = ("<pad>", "<eos>", "<unk>", "<bos>")
PAD, EOS, UNK, BOS = range(len(SPECIAL))


class Tokenizer:
    """What all kinds have in common.

    Attributes:
      normal: what is done to a text first, and undone last.
    """

    kind: ClassVar[str] = ""
    recipe: ClassVar[dict] = {}  # what, beside the text, decides the vocabulary
    pad, eos, unk, bos = PAD, EOS, UNK, BOS
    vocab_size: int
    normal: Normalizer = AS_IS
    unknown: ClassVar[str] = SPECIAL[UNK]  # how `text` shows what was not known

    def with_normal(self, normal: Normalizer) -> "Tokenizer":
        """The same vocabulary for texts that are normalised otherwise."""
        other = copy.copy(self)
        other.normal = normal
        return other

    def shares_vocabulary(self, other: "Tokenizer") -> bool:
        """Whether a number means the same to both."""
        if self is other:
            return True
        return self.kind == other.kind and self.content() == other.content()

    def encode(self, text: str) -> list[int]:
        """The numbers of a text."""
        return self.numbers(self.normal.apply(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of numbers; see `text`."""
        return self.normal.undo(self.text(ids))

    def words(self, text: str) -> list[str]:
        """What each number of `encode` stands for, known or not."""
        return self.split(self.normal.apply(text))


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes; nothing is unknown."""

    kind: ClassVar = "byte"
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

    def text(self, ids: Sequence[int]) -> str:
        """The text; a broken character becomes U+FFFD, special numbers nothing."""
        plain = bytes(i - len(SPECIAL) for i in ids if i >= len(SPECIAL))
        return plain.decode(errors="replace")

    @staticmethod
    def split(text: str) -> list[str]:
        """The bytes, each as U+FFFD where it is no character."""
        return [bytes([byte]).decode(errors="replace") for byte in text.encode()]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A legible name a number."""
        return [SPECIAL[i] if i < len(SPECIAL) else self.text([i]) for i in ids]


class ListTokenizer(Tokenizer):
    """A list of known symbols; subclasses say how text falls into symbols."""

    joiner: ClassVar[str]

    def __init__(self, symbols: Sequence[str]):
        self.symbols = list(symbols)
        self.vocab_size = len(self.symbols)
        self.ids = {symbol: i for i, symbol in enumerate(self.symbols)}

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

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A legible name a number."""
        return [self.symbols[i] for i in ids]


class WordTokenizer(ListTokenizer):
    """What stands between white space. `<unk>` in a text is the unknown word."""

    kind: ClassVar = "word"
    joiner = " "

    @staticmethod
    def split(text: str) -> list[str]:
        """The words."""
        return text.split()


class CharTokenizer(ListTokenizer):
    """Unicode characters."""

    kind: ClassVar = "char"
    joiner = ""

    @staticmethod
    def split(text: str) -> list[str]:
        """The characters."""
        return list(text)


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair encoding (Sennrich et al. 2016) by SentencePiece (Kudo 2018).

    Text is not normalised, so what is decoded is what was encoded, and each digit
    is a piece of its own, so numbers can be copied and changed digit by digit.
    """

    kind: ClassVar = "sentencepiece"
    recipe: ClassVar = {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
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

        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(text for text in texts if text),
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

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A legible name a number; a space is shown as U+2581."""
        return [self.processor.id_to_piece(int(i)) for i in ids]


class UnigramTokenizer(SentencePieceTokenizer):
    """Unigram language model (Kudo 2018) by SentencePiece."""

    kind: ClassVar = "unigram"
    recipe: ClassVar = {**SentencePieceTokenizer.recipe, "model_type": "unigram"}


KINDS = {
    kind.kind: kind
    for kind in (
        ByteTokenizer,
        WordTokenizer,
        CharTokenizer,
        SentencePieceTokenizer,
        UnigramTokenizer,
    )
}


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, min_count: int
) -> Tokenizer:
    """From texts as they are normalised.

    Raises UserError for a kind that does not exist or a size that cannot be.
    """
    if kind not in KINDS:
        raise UserError(f"data.tokenizer={kind!r}: there are {', '.join(KINDS)}")
    if vocab_size <= len(SPECIAL):
        raise UserError(
            f"data.vocab_size={vocab_size} has no room for words: "
            f"the first {len(SPECIAL)} are {' '.join(SPECIAL)}"
        )
    try:
        tokenizer = KINDS[kind].train(texts, vocab_size, min_count)
    except RuntimeError as error:  # SentencePiece's: too few pieces for the characters
        raise UserError(f"data.vocab_size={vocab_size}: {error}") from error
    is_learnt = isinstance(tokenizer, SentencePieceTokenizer)
    if is_learnt and tokenizer.vocab_size < vocab_size:
        raise UserError(
            f"data.vocab_size={vocab_size} is more than the text allows: it has "
            f"{tokenizer.vocab_size} pieces"
        )
    return tokenizer


def read_vocabulary(kind: str, path: Path) -> Tokenizer:
    """A tokenizer from a SentencePiece model or a list of symbols, one a line.

    Raises UserError for a file that is not there or not what the kind needs.
    """
    if not path.is_file():
        raise UserError(f"data.vocabulary={path}: there is no such file")
    if kind in ("sentencepiece", "unigram"):
        return _read_pieces(kind, path)
    if kind in ("word", "char"):
        symbols = path.read_text(encoding="utf8").removesuffix("\n").split("\n")
        own = [symbol for symbol in symbols if symbol not in SPECIAL]
        return KINDS[kind]([*SPECIAL, *own])
    raise UserError(f"data.vocabulary={path}: {kind} needs none")


def _read_pieces(kind: str, path: Path) -> Tokenizer:
    try:
        tokenizer = KINDS[kind](path.read_bytes())
    except RuntimeError as error:
        raise UserError(
            f"data.vocabulary={path} is no model of SentencePiece"
        ) from error
    processor = tokenizer.processor
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if (*ids, processor.bos_id()) != (PAD, EOS, UNK, BOS):
        raise UserError(
            f"data.vocabulary={path}: its first pieces must be {' '.join(SPECIAL)}; "
            "train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=3"
        )
    return tokenizer


def dump_tokenizer(tokenizer: Tokenizer) -> str:
    """One JSON document."""
    content = {"kind": tokenizer.kind, **tokenizer.content()}
    if tokenizer.normal != AS_IS:
        content["normal"] = dataclasses.asdict(tokenizer.normal)
    return json.dumps(content, ensure_ascii=False)


def parse_tokenizer(document: str) -> Tokenizer:
    """The tokenizer that `dump_tokenizer` wrote."""
    content = json.loads(document)
    tokenizer = KINDS[content["kind"]].load(content)
    tokenizer.normal = Normalizer(**content.get("normal", {}))
    return tokenizer
