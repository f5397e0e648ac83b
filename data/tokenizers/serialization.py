"""Tokenizers of every kind: learnt, read from a file, written as a document."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer
from data.tokenizers.normalization import AS_IS, Normalizer
from data.tokenizers.sentencepiece_model import SentencePieceTokenizer, UnigramTokenizer
from data.tokenizers.symbols import (
    ByteTokenizer,
    CharTokenizer,
    ListTokenizer,
    WordTokenizer,
)
from utils.errors import UserError

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
    if issubclass(KINDS.get(kind, Tokenizer), ListTokenizer):
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
    if tokenizer.tags:
        content["tags"] = list(tokenizer.tags)
    return json.dumps(content, ensure_ascii=False)


def parse_tokenizer(document: str) -> Tokenizer:
    """The tokenizer that `dump_tokenizer` wrote."""
    content = json.loads(document)
    tokenizer = KINDS[content["kind"]].load(content)
    normal = Normalizer(**content.get("normal", {}))
    return tokenizer.with_tags(content.get("tags", ())).with_normal(normal)
