"""Corpora as numbers on disk: encoded once, mapped into memory by every run.

    <data.dir>/encoded/<corpus>/tokenizer-<key>/<side>.json
    <data.dir>/encoded/<corpus>/tokens-<key>/<split>.<side>.{tokens,offsets}.npy

A folder is written under another name and renamed when it is whole, so what
stands under its own name can be trusted. Keys are hashes of all that the content
depends on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data.corpora import Corpus
from data.tokenizers import EOS, Tokenizer, dump_tokenizer, parse_tokenizer

FORMAT = 1  # to be raised when the files' layout or meaning changes


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One side of one split: all examples behind one another, EOS after each.

    Attributes:
      tokens: mapped from disk, [N].
      offsets: where each example begins, and N at the end.
      characters, words, size: of the text; `size` in bytes of UTF-8. Each
        example counts one more for its end, which EOS stands for.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    characters: int
    words: int
    size: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens an example, EOS included."""
        return np.diff(self.offsets)


def open_tokenizers(
    corpus: Corpus, folder: Path, settings: dict, train: Callable[[], dict]
) -> dict[str, Tokenizer]:
    """A tokenizer a side, learnt at the first call, read back afterwards.

    Args:
      settings: what the tokenizers depend on, beside the corpus.
      train: learns them.
    """
    key = short_hash(FORMAT, corpus.name, corpus.version, settings)
    target = folder / f"tokenizer-{key}"
    if not target.exists():
        with written_whole(target) as draft:
            for side, tokenizer in train().items():
                document = dump_tokenizer(tokenizer)
                (draft / f"{side}.json").write_text(document, encoding="utf8")
    return {
        file.stem: parse_tokenizer(file.read_text(encoding="utf8"))
        for file in sorted(target.glob("*.json"))
    }


def open_encoded(
    corpus: Corpus, folder: Path, tokenizers: list[tuple[str, Tokenizer]]
) -> dict[str, dict[str, Encoded]]:
    """Every split and side as numbers: `[split][side]`.

    Args:
      tokenizers: (side, tokenizer) in the order in which the corpus has them.
    """
    documents = [dump_tokenizer(tokenizer) for _, tokenizer in tokenizers]
    key = short_hash(FORMAT, corpus.name, corpus.version, documents)
    target = folder / f"tokens-{key}"
    if not target.exists():
        print(f"encoding {corpus.name} ...", file=sys.stderr)
        with written_whole(target) as draft:
            for split in corpus.splits:
                write_split(draft, split, corpus.read(split), tokenizers)
    return {
        split: {side: read_side(target, split, side) for side, _ in tokenizers}
        for split in corpus.splits
    }


def write_split(
    folder: Path,
    split: str,
    examples: Iterable[tuple[str, ...]],
    tokenizers: list[tuple[str, Tokenizer]],
) -> None:
    """Encodes one split, a few bytes of memory a token."""
    large = max(tokenizer.vocab_size for _, tokenizer in tokenizers) > 2**16
    tokens = [array("I" if large else "H") for _ in tokenizers]
    offsets = [array("q", [0]) for _ in tokenizers]
    counts = [{"characters": 0, "words": 0, "size": 0} for _ in tokenizers]
    for texts in examples:
        for i, (text, (_, tokenizer)) in enumerate(zip(texts, tokenizers, strict=True)):
            tokens[i].extend(tokenizer.encode(text))
            tokens[i].append(EOS)
            offsets[i].append(len(tokens[i]))
            counts[i]["characters"] += len(text) + 1
            counts[i]["words"] += len(text.split()) + 1
            counts[i]["size"] += len(text.encode()) + 1
    for (side, _), numbers, starts, count in zip(
        tokenizers, tokens, offsets, counts, strict=True
    ):
        stem = folder / f"{split}.{side}"
        np.save(f"{stem}.tokens.npy", np.asarray(numbers))
        np.save(f"{stem}.offsets.npy", np.asarray(starts))
        Path(f"{stem}.counts.json").write_text(json.dumps(count), encoding="utf8")


def read_side(folder: Path, split: str, side: str) -> Encoded:
    """Maps what `write_split` wrote."""
    stem = folder / f"{split}.{side}"
    counts = json.loads(Path(f"{stem}.counts.json").read_text(encoding="utf8"))
    tokens = np.load(f"{stem}.tokens.npy", mmap_mode="r")
    return Encoded(tokens, np.load(f"{stem}.offsets.npy"), **counts)


def short_hash(*parts) -> str:
    """Sixteen hexadecimal digits that depend on all parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_hash(encoded: Encoded) -> str:
    """Sixteen hexadecimal digits of the tokens themselves."""
    digest = hashlib.sha256(np.ascontiguousarray(encoded.offsets))
    for start in range(0, len(encoded.tokens), 2**22):
        digest.update(np.ascontiguousarray(encoded.tokens[start : start + 2**22]))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to fill that becomes `target` if all goes well, and else nothing.

    When another process was faster, its folder stays and ours goes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)  # others may read what they share
        with contextlib.suppress(FileExistsError):
            os.rename(draft, target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
