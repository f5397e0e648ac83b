"""Corpora as numbers on disk: encoded once, mapped into memory by every run.

    <data.dir>/encoded/<corpus>/tokens-<key>/<split>.<side>.{tokens,offsets,hashes}.npy

A folder is written under another name and renamed when it is whole, so what
stands under its own name can be trusted. Keys are hashes of all that the content
depends on.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from data.corpus import TRAIN, Corpus
from data.remote import is_there
from data.storage import short_hash
from data.token_cache.writer import encode_all
from data.tokenizers.bpe_dropout import Dropout
from data.tokenizers.serialization import Tokenizer, dump_tokenizer

FORMAT = 2  # to be raised when the files' layout or meaning changes


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One side of one split: all examples behind one another, EOS after each.

    Attributes:
      tokens: mapped from disk, [N].
      offsets: where each example begins, and N at the end.
      hashes: of each example's text; equal texts have equal ones.
      digest: sixteen hexadecimal digits of all tokens.
      characters, words, size: of the text; `size` in bytes of UTF-8. Each
        example counts one more for its end, which EOS stands for.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    characters: int
    words: int
    size: int
    hashes: np.ndarray | None = None
    digest: str = ""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens an example, EOS included."""
        return np.diff(self.offsets).astype(np.int32)


def open_encoded(
    corpus: Corpus, folder: Path, tokenizers: list[tuple[str, Tokenizer]]
) -> tuple[dict[str, dict[str, Encoded]], Path]:
    """Every split and side as numbers, `[split][side]`, and the folder they are in.

    Args:
      tokenizers: (side, tokenizer) in the order in which the corpus has them.
    """
    documents = [dump_tokenizer(tokenizer) for _, tokenizer in tokenizers]
    about = [corpus.name, corpus.version, corpus.fields, corpus.splits]
    key = short_hash(FORMAT, about, documents)
    target = folder / f"tokens-{key}"
    if not is_there(target):
        encode_all(corpus, target, tokenizers)
    encoded = {
        split: {side: read_side(target, split, side) for side, _ in tokenizers}
        for split in corpus.splits
    }
    return encoded, target


def open_copy(
    corpus: Corpus,
    folder: Path,
    tokenizers: list[tuple[str, Tokenizer]],
    dropout: Dropout,
) -> dict[str, Encoded]:
    """The training split, segmented anew: `[side]`.

    Args:
      folder: of the ordinary segmentation, beside which this one is kept.
    """
    key = short_hash(dropout.probability, dropout.seed)
    target = folder.with_name(f"{folder.name}-dropout-{key}-{dropout.copy}")
    if not is_there(target):
        encode_all(corpus, target, tokenizers, dropout)
    return {side: read_side(target, TRAIN, side) for side, _ in tokenizers}


def read_side(folder: Path, split: str, side: str) -> Encoded:
    """Maps what `encode_all` wrote."""
    stem = folder / f"{split}.{side}"
    counts = json.loads(Path(f"{stem}.counts.json").read_text(encoding="utf8"))
    arrays = {
        name: np.load(f"{stem}.{name}.npy", mmap_mode="r")
        for name in ("tokens", "offsets", "hashes")
    }
    return Encoded(**arrays, **counts)
