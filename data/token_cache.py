"""Token ids of a corpus, computed once and memory-mapped by every run.

    <data.dir>/encoded/<corpus>/tokens-<key>/<split>.<side>.{tokens,offsets,hashes}.npy

`<key>` is a hash of the corpus and the tokenizers. token_writer.py writes
them.
"""

import dataclasses
import json
import pkgutil
from pathlib import Path
from typing import Protocol

import numpy as np

from data.corpus import TRAIN, Corpus
from data.storage import ensure_local, short_hash
from data.tokenizers.base import EOS, Tokenizer
from data.tokenizers.build import dump_tokenizer

FORMAT = 2  # increment it when the layout or meaning of the files changes
WRITE = "data.token_writer:write_token_cache"  # imported only to tokenize a corpus

Tokenizers = list[tuple[str, Tokenizer]]  # (side, tokenizer) in the corpus's order


class Segmentation(Protocol):
    """A random segmentation of the training split: a `BPEDropout`."""

    name: str  # of its folder

    def sampler(self, tokenizer: Tokenizer, *position: int):
        """Returns a tokenizer whose random numbers depend on `position`."""


@dataclasses.dataclass(frozen=True)
class TokenizedSplit:
    """One side of one split: the token ids of all examples, each ended by EOS.

    Attributes:
      tokens: token ids of all N tokens, memory-mapped.
      offsets: index of the first token of each example, and N.
      characters, words, size: of the text, `size` in bytes of UTF-8; each example
        counts one more, for EOS.
      hashes: hash of each example's text.
      digest: 16 hexadecimal digits that depend on all tokens.
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
        """Number of tokens of each example, EOS included."""
        return np.diff(self.offsets).astype(np.int32)

    def truncate(self, max_length: int, *, ends: bool) -> "TokenizedSplit":
        """Returns the examples cut to `max_length` tokens, in memory if any is longer.

        Args:
          ends: whether an example that is cut ends with EOS.
        """
        lengths = np.minimum(self.lengths, max_length)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if offsets[-1] == self.offsets[-1]:
            return self
        starts = np.repeat(self.offsets[:-1] - offsets[:-1], lengths)
        tokens = self.tokens[starts + np.arange(offsets[-1])]
        if ends:
            tokens[offsets[1:] - 1] = EOS
        return dataclasses.replace(self, tokens=tokens, offsets=offsets)


def open_token_cache(
    corpus: Corpus, folder: Path, tokenizers: Tokenizers
) -> tuple[dict[str, dict[str, TokenizedSplit]], Path]:
    """Returns all splits as `[split][side]`, tokenized if needed, and their folder."""
    documents = [dump_tokenizer(tokenizer) for _, tokenizer in tokenizers]
    about = [corpus.name, corpus.version, corpus.fields, corpus.splits]
    target = folder / f"tokens-{short_hash(FORMAT, about, documents)}"
    if not ensure_local(target):
        pkgutil.resolve_name(WRITE)(corpus, target, tokenizers)
    tokenized = {
        split: {side: read_side(target, split, side) for side, _ in tokenizers}
        for split in corpus.splits
    }
    return tokenized, target


def open_segmentation(
    corpus: Corpus, folder: Path, tokenizers: Tokenizers, segmentation: Segmentation
) -> dict[str, TokenizedSplit]:
    """Returns the training split, by side, in a segmentation next to `folder`."""
    target = folder.with_name(f"{folder.name}-{segmentation.name}")
    if not ensure_local(target):
        pkgutil.resolve_name(WRITE)(corpus, target, tokenizers, segmentation)
    return {side: read_side(target, TRAIN, side) for side, _ in tokenizers}


def read_side(folder: Path, split: str, side: str) -> TokenizedSplit:
    """Memory-maps one side of a split."""
    stem = folder / f"{split}.{side}"
    counts = json.loads(Path(f"{stem}.counts.json").read_text(encoding="utf8"))
    arrays = {
        name: np.load(f"{stem}.{name}.npy", mmap_mode="r")
        for name in ("tokens", "offsets", "hashes")
    }
    return TokenizedSplit(**arrays, **counts)
