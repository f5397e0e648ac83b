"""Turns a corpus into numbers on disk, in parts that survive a kill.

A part is some examples of a split, encoded by a process of its own and renamed
when it is whole. When all are there they are joined; memory holds one part a
process, whatever the corpus's size.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from multiprocessing import spawn
from pathlib import Path

from data.chunk_text import PORTION
from data.corpus import TRAIN, Corpus
from data.samples import mean_size
from data.storage import written_whole
from data.token_cache.shards import Side, join
from data.tokenizers.bpe_dropout import Dropout
from data.tokenizers.serialization import Tokenizer, dump_tokenizer, parse_tokenizer
from utils.locks import file_lock

PART = 100_000  # examples, at most
PART_SIZE = 2**24  # characters, about
PROCESSES = 16  # at most
PATIENCE = 5  # seconds between two words on how far it is


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
    with file_lock(lock, f"encodes {corpus.name}"):
        if not target.exists():  # who was waited for may have done it
            encode_alone(corpus, target, tokenizers, dropout)


def encode_alone(corpus: Corpus, target: Path, tokenizers, dropout=None) -> None:
    """The same, where no other process does it."""
    splits = [TRAIN] if dropout else list(corpus.splits)
    parts = [part for split in splits for part in parts_of(corpus, split, dropout)]
    drafts = target.with_name(f".{target.name}.parts")
    encode_parts(corpus, parts, drafts, tokenizers)
    with written_whole(target) as whole:
        for split in splits:
            folders = [drafts / part.name for part in parts if part.split == split]
            for side, _ in tokenizers:
                join(folders, side, whole / f"{split}.{side}")
    shutil.rmtree(drafts, ignore_errors=True)


def parts_of(corpus: Corpus, split: str, dropout: Dropout | None) -> list[Part]:
    """A split in parts of much the same size."""
    size = corpus.splits[split]
    step = max(1, min(PART, int(PART_SIZE / mean_size(corpus, split))))
    return [
        Part(split, start, min(start + step, size), dropout)
        for start in range(0, size, step)
    ]


def encode_parts(corpus: Corpus, parts, drafts: Path, tokenizers) -> None:
    """All parts that are not there yet, several at a time where there are many."""
    missing = [part for part in parts if not (drafts / part.name).exists()]
    print(f"encoding {corpus.name} ...", file=sys.stderr)
    workers = min(len(missing), PROCESSES, os.cpu_count() or 1)
    splits = {part.split for part in missing}
    if workers < 2 or len(missing) == len(splits):  # starting another takes seconds
        for part in missing:
            encode_part(corpus, part, drafts, tokenizers)
        return
    documents = [(side, dump_tokenizer(one)) for side, one in tokenizers]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, quiet_tfds) as pool:
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


def quiet_tfds() -> None:
    """It warns of every corpus that a process gets."""
    logging.getLogger("absl").setLevel(logging.ERROR)


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
    with written_whole(drafts / part.name, keep=False) as draft:
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
