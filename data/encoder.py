"""Turns a corpus into numbers on disk, in parts that survive a kill.

A part is some examples of a split, encoded by a process of its own and renamed
when it is whole. When all are there they are joined; memory holds one part a
process, whatever the corpus's size.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from multiprocessing import spawn
from pathlib import Path

import numpy as np

from data.bpe_dropout import Dropout, Sampler
from data.corpora import TRAIN, Corpus
from data.locks import one_at_a_time
from data.portions import PORTION, num_words
from data.storage import written_whole
from data.tokenizers import EOS, Tokenizer, dump_tokenizer, parse_tokenizer

PART = 100_000  # examples
PROCESSES = 16  # at most
PATIENCE = 5  # seconds between two words on how far it is
COPIED = 2**22  # numbers copied at once


@dataclasses.dataclass(frozen=True)
class Part:
    """Examples `start` to `stop` of a split.

    Attributes:
      dropout: how their segmentation is drawn; None: it is the ordinary one.
    """

    split: str
    start: int
    stop: int
    dropout: Dropout | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.split}-{self.start}"


def encode_all(
    corpus: Corpus,
    target: Path,
    tokenizers: list[tuple[str, Tokenizer]],
    dropout: Dropout | None = None,
) -> None:
    """Writes every split and side of a corpus to the folder `target`.

    Args:
      dropout: a segmentation to be drawn, of the training split alone.
    """
    lock = target.with_name(f".{target.name}.lock")
    with one_at_a_time(lock, f"encodes {corpus.name}"):
        if not target.exists():  # who was waited for may have done it
            encode_alone(corpus, target, tokenizers, dropout)


def encode_alone(corpus: Corpus, target: Path, tokenizers, dropout=None) -> None:
    """The same, where no other process does it."""
    splits = [TRAIN] if dropout else list(corpus.splits)
    parts = [
        Part(split, start, min(start + PART, corpus.splits[split]), dropout)
        for split in splits
        for start in range(0, corpus.splits[split], PART)
    ]
    drafts = target.with_name(f".{target.name}.parts")
    encode_parts(corpus, parts, drafts, tokenizers)
    with written_whole(target) as whole:
        for split in splits:
            folders = [drafts / part.name for part in parts if part.split == split]
            for side, _ in tokenizers:
                join(folders, side, whole / f"{split}.{side}")
    shutil.rmtree(drafts, ignore_errors=True)


def encode_parts(corpus: Corpus, parts, drafts: Path, tokenizers) -> None:
    """All parts that are not there yet, several at a time where there are many."""
    missing = [part for part in parts if not (drafts / part.name).exists()]
    print(f"encoding {corpus.name} ...", file=sys.stderr)
    is_large = sum(part.stop - part.start for part in missing) > PART
    workers = min(len(missing), PROCESSES, os.cpu_count() or 1)
    if workers < 2 or not is_large:
        for part in missing:
            encode_part(corpus, part, drafts, tokenizers)
        return
    documents = [(side, dump_tokenizer(one)) for side, one in tokenizers]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        with main_left_out():
            jobs = [
                pool.submit(encode_dumped, corpus, part, drafts, documents)
                for part in missing
            ]
        told = time.monotonic()
        for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
            job.result()
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                share = (len(parts) - len(missing) + done) / len(parts)
                print(f"encoding {corpus.name}: {share:.0%}", file=sys.stderr)


@contextlib.contextmanager
def main_left_out() -> Iterator[None]:
    """New processes do not run the program's main file, which may have no guard."""
    whole = spawn.get_preparation_data

    def without_main(name):
        return {k: v for k, v in whole(name).items() if not k.startswith("init_main")}

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = whole


def encode_dumped(corpus: Corpus, part: Part, drafts: Path, documents) -> None:
    """`encode_part` in another process, which gets tokenizers as text."""
    tokenizers = [(side, parse_tokenizer(document)) for side, document in documents]
    encode_part(corpus, part, drafts, tokenizers)


def encode_part(corpus: Corpus, part: Part, drafts: Path, tokenizers) -> None:
    """Encodes some examples, a few bytes of memory a token."""
    if part.dropout:
        tokenizers = [
            (side, part.dropout.sampler(tokenizer, part.start, number))
            for number, (side, tokenizer) in enumerate(tokenizers)
        ]
    sides = [Side(tokenizer) for _, tokenizer in tokenizers]
    for block in blocks(corpus.read(part.split, part.start, part.stop)):
        for side, texts in zip(sides, zip(*block, strict=True), strict=True):
            side.add_all(texts)
    with written_whole(drafts / part.name) as draft:
        for (name, _), side in zip(tokenizers, sides, strict=True):
            side.write(draft / name)


def blocks(examples: Iterator[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """Examples in lists of not too many characters."""
    block, size = [], 0
    for example in examples:
        block.append(example)
        size += sum(map(len, example))
        if size > PORTION:
            yield block
            block, size = [], 0
    if block:
        yield block


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
    """The parts of one side of one split behind one another."""
    parts = {
        name: [np.load(f / f"{side}.{name}.npy", mmap_mode="r") for f in folders]
        for name in ("tokens", "lengths", "hashes")
    }
    digests = {}
    for name in ("tokens", "hashes"):
        kind = parts[name][0].dtype if folders else np.uint16
        total = sum(map(len, parts[name]))
        whole = np.lib.format.open_memmap(f"{stem}.{name}.npy", "w+", kind, (total,))
        digests[name] = copy_into(whole, parts[name])
    lengths = np.concatenate([[0], *parts["lengths"]])
    np.save(f"{stem}.offsets.npy", np.cumsum(lengths, dtype=np.int64))
    counts = [json.loads((f / f"{side}.counts.json").read_text()) for f in folders]
    total = {key: sum(one[key] for one in counts) for key in Side.keys}
    total["digest"] = digests["tokens"]
    Path(f"{stem}.counts.json").write_text(json.dumps(total), encoding="utf8")


def copy_into(whole: np.ndarray, parts: list[np.ndarray]) -> str:
    """Fills an array on disk, a little at a time; returns what tells its content."""
    place, digest = 0, hashlib.sha256()
    for part in parts:
        for start in range(0, len(part), COPIED):
            some = part[start : start + COPIED]
            whole[place : place + len(some)] = some
            digest.update(np.ascontiguousarray(some))
            place += len(some)
    whole.flush()
    return digest.hexdigest()[:16]
