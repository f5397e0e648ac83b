"""The numbers of some examples, and how such parts become a split's files."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data.chunk_text import PORTION, num_words
from data.tokenizers.base import EOS, Tokenizer
from data.tokenizers.bpe_dropout import Sampler


class Side:
    """One side of some examples as numbers, EOS after each."""

    keys = ("characters", "words", "size")

    def __init__(self, tokenizer: Tokenizer | Sampler):
        self.tokenizer = tokenizer
        self.tokens = array("I" if tokenizer.vocab_size > 2**16 else "H")
        self.lengths, self.hashes = array("q"), array("Q")
        self.counts = dict.fromkeys(self.keys, 0)

    def add(self, text: str) -> None:
        """One example."""
        self.add_all([text])

    def add_all(self, texts: Sequence[str]) -> None:
        """Some examples."""
        if any(len(text) > PORTION for text in texts):
            for text in texts:
                self._add_long(text)
            return
        numbers, lengths = self.tokenizer.encode_all(texts)
        ended = np.insert(numbers, np.cumsum(lengths), EOS)
        self._append(ended)
        self.lengths.frombytes((lengths + 1).astype(np.int64).tobytes())
        for text in texts:
            self._count(text)

    def _add_long(self, text: str) -> None:
        before = len(self.tokens)
        for numbers in self.tokenizer.encode_long(text):
            self._append(numbers)
        self.tokens.append(EOS)
        self.lengths.append(len(self.tokens) - before)
        self._count(text)

    def _append(self, numbers: np.ndarray) -> None:
        self.tokens.frombytes(numbers.astype(self.tokens.typecode).tobytes())

    def _count(self, text: str) -> None:
        content = text.encode(errors="surrogateescape")
        digest = hashlib.blake2b(content, digest_size=8).digest()
        self.hashes.append(int.from_bytes(digest, "little"))
        self.counts["characters"] += len(text) + 1
        self.counts["words"] += num_words(text) + 1
        self.counts["size"] += len(content) + 1

    def write(self, stem: Path) -> None:
        """Three arrays and the counts."""
        for name in ("tokens", "lengths", "hashes"):
            np.save(f"{stem}.{name}.npy", np.asarray(getattr(self, name)))
        Path(f"{stem}.counts.json").write_text(json.dumps(self.counts), "utf8")


def join(folders: list[Path], side: str, stem: Path) -> None:
    """The parts of one side of one split behind one another, a part in memory."""

    def parts(name: str) -> Iterator[np.ndarray]:
        return (np.load(folder / f"{side}.{name}.npy") for folder in folders)

    counts = [json.loads((f / f"{side}.counts.json").read_text()) for f in folders]
    total = {key: sum(one[key] for one in counts) for key in Side.keys}
    examples = write(f"{stem}.hashes.npy", parts("hashes"), np.uint64)[0]
    kind = next(parts("tokens")).dtype if folders else np.uint16
    _, total["digest"] = write(f"{stem}.tokens.npy", parts("tokens"), kind)
    written, _ = write(f"{stem}.offsets.npy", offsets(parts("lengths")), np.int64)
    assert written == examples + 1, stem
    Path(f"{stem}.counts.json").write_text(json.dumps(total), encoding="utf8")


def offsets(lengths: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Where each example begins, and at last where all end."""
    begin = np.zeros(1, np.int64)
    yield begin
    for some in lengths:
        ends = begin[-1] + np.cumsum(some, dtype=np.int64)
        yield ends
        begin = ends if len(ends) else begin


def write(path: str, parts: Iterable[np.ndarray], kind: np.dtype) -> tuple[int, str]:
    """Writes arrays as one; returns its length and what tells its content.

    Not through a map of the file, of which memory would hold more and more.
    """
    size, digest = 0, hashlib.sha256()
    with open(path, "wb") as file:
        header(file, 0, kind)
        begin = file.tell()
        for part in parts:
            file.write(part.astype(kind, copy=False).data)
            digest.update(part.data)
            size += len(part)
        file.seek(0)
        header(file, size, kind)
        assert file.tell() == begin, path
    return size, digest.hexdigest()[:16]


def header(file, size: int, kind: np.dtype) -> None:
    """The first bytes of a .npy file; as many whatever the size."""
    descr = np.lib.format.dtype_to_descr(np.dtype(kind))
    shape = {"descr": descr, "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, shape)
