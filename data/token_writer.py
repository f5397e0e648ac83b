"""Tokenization of a corpus, once for all runs, into the files of token_cache.py.

A corpus is tokenized in shards, each by one process and renamed when it is complete,
so that a killed run loses little. The shards are then concatenated one by one: memory
holds one shard per process.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from multiprocessing import spawn
from pathlib import Path
from unittest import mock

import numpy as np

from data.corpus import TRAIN, Corpus, mean_size
from data.storage import atomic_directory
from data.token_cache import Segmentation, Tokenizers
from data.tokenizers.base import CHUNK, EOS, Tokenizer, num_words
from utils.locks import file_lock

SHARD_EXAMPLES = 100_000  # at most
SHARD_SIZE = 2**24  # characters, about
MAX_PROCESSES = 16
REPORT_SECONDS = 5  # between two progress messages
COUNTS = ("characters", "words", "size")  # of a `TokenizedSplit`


@dataclasses.dataclass(frozen=True)
class Shard:
    """Examples `start` to `stop` of a split, in one of its segmentations."""

    split: str
    start: int
    stop: int
    segmentation: Segmentation | None = None

    @property
    def name(self) -> str:
        """Name of the shard's folder."""
        return f"{self.split}-{self.start}"


def write_token_cache(
    corpus: Corpus,
    target: Path,
    tokenizers: Tokenizers,
    segmentation: Segmentation | None = None,
) -> None:
    """Tokenizes all splits, or the training split in a random segmentation."""
    lock = target.with_name(f".{target.name}.lock")
    with file_lock(lock, f"tokenizes {corpus.name}"):
        if target.exists():  # the process we waited for has written it
            return
        splits = [TRAIN] if segmentation else list(corpus.splits)
        shards = {split: make_shards(corpus, split, segmentation) for split in splits}
        drafts = target.with_name(f".{target.name}.parts")
        write_shards(corpus, [*chain(*shards.values())], drafts, tokenizers)
        with atomic_directory(target) as draft:
            for split, (side, _) in product(splits, tokenizers):
                folders = [drafts / shard.name for shard in shards[split]]
                merge_shards(folders, side, draft / f"{split}.{side}")
        for shard in chain(*shards.values()):
            shutil.rmtree(drafts / shard.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            drafts.rmdir()  # unless somebody put something else there


def make_shards(
    corpus: Corpus, split: str, segmentation: Segmentation | None = None
) -> list[Shard]:
    """Divides a split into shards of similar size."""
    size = corpus.splits[split]
    step = max(1, min(SHARD_EXAMPLES, int(SHARD_SIZE / mean_size(corpus, split))))
    return [
        Shard(split, start, min(start + step, size), segmentation)
        for start in range(0, size, step)
    ]


def write_shards(corpus: Corpus, shards, drafts: Path, tokenizers: Tokenizers) -> None:
    """Tokenizes all missing shards, in several processes if there are many."""
    missing = [shard for shard in shards if not (drafts / shard.name).exists()]
    print(f"tokenizing {corpus.name} ...", file=sys.stderr)
    workers = min(len(missing), MAX_PROCESSES, os.cpu_count() or 1)
    splits = {shard.split for shard in missing}
    if workers < 2 or len(missing) == len(splits):  # starting a process takes seconds
        for shard in missing:
            write_shard(corpus, shard, drafts, tokenizers)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _quiet_tfds) as pool:
        with spawn_without_main():
            jobs = [
                pool.submit(write_shard, corpus, shard, drafts, tokenizers)
                for shard in missing
            ]
        reported = time.monotonic()
        for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
            job.result()
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                fraction = (len(shards) - len(missing) + done) / len(shards)
                print(f"tokenizing {corpus.name}: {fraction:.0%}", file=sys.stderr)


def _quiet_tfds() -> None:
    """Disables a warning of TFDS about every corpus that a process receives."""
    logging.getLogger("absl").setLevel(logging.ERROR)


def spawn_without_main() -> contextlib.AbstractContextManager:
    """Starts processes without importing the main file, which may have no guard."""
    original = spawn.get_preparation_data

    def without_main(name):
        data = original(name)
        return {k: v for k, v in data.items() if not k.startswith("init_main")}

    return mock.patch.object(spawn, "get_preparation_data", without_main)


def write_shard(corpus: Corpus, shard: Shard, drafts: Path, tokenizers) -> None:
    """Tokenizes the examples of a shard into its folder."""
    if shard.segmentation:
        tokenizers = [
            (side, shard.segmentation.sampler(tokenizer, shard.start, number))
            for number, (side, tokenizer) in enumerate(tokenizers)
        ]
    writers = [SideWriter(tokenizer) for _, tokenizer in tokenizers]
    examples = corpus.read(shard.split, shard.start, shard.stop)
    for block in group_by_characters(examples, CHUNK):
        for writer, texts in zip(writers, zip(*block, strict=True), strict=True):
            writer.add_all(texts)
    with atomic_directory(drafts / shard.name, mirror=False) as draft:
        for (side, _), writer in zip(tokenizers, writers, strict=True):
            writer.write(draft / side)


def group_by_characters(
    examples: Iterable[Sequence[str]], size: int
) -> Iterator[list[Sequence[str]]]:
    """Groups examples, which are sequences of texts, by their total length."""
    group, total = [], 0
    for example in examples:
        group.append(example)
        total += sum(map(len, example))
        if total > size:
            yield group
            group, total = [], 0
    if group:
        yield group


class SideWriter:
    """Accumulates the token ids of one side of some examples."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens = array("I" if tokenizer.vocab_size > 2**16 else "H")
        self.lengths, self.hashes = array("q"), array("Q")
        self.counts = dict.fromkeys(COUNTS, 0)

    def add_all(self, texts: Sequence[str]) -> None:
        """Tokenizes and appends texts, each with EOS."""
        if any(len(text) > CHUNK for text in texts):
            for text in texts:
                before = len(self.tokens)
                for ids in self.tokenizer.encode_long(text):
                    self._append(ids)
                self.tokens.append(EOS)
                self.lengths.append(len(self.tokens) - before)
        else:
            ids, lengths = self.tokenizer.encode_batch(texts)
            self._append(np.insert(ids, np.cumsum(lengths), EOS))
            self.lengths.frombytes((lengths + 1).astype(np.int64).tobytes())
        for text in texts:
            content = text.encode(errors="surrogateescape")
            digest = hashlib.blake2b(content, digest_size=8).digest()
            self.hashes.append(int.from_bytes(digest, "little"))
            sizes = len(text), num_words(text), len(content)
            for name, size in zip(COUNTS, sizes, strict=True):
                self.counts[name] += size + 1

    def _append(self, ids: np.ndarray) -> None:
        self.tokens.frombytes(ids.astype(self.tokens.typecode).tobytes())

    def write(self, stem: Path) -> None:
        """Writes three arrays and the counts."""
        for name in ("tokens", "lengths", "hashes"):
            np.save(f"{stem}.{name}.npy", np.asarray(getattr(self, name)))
        Path(f"{stem}.counts.json").write_text(json.dumps(self.counts), "utf8")


def merge_shards(folders: list[Path], side: str, stem: Path) -> None:
    """Concatenates one side of all shards of a split, one shard in memory at a time."""

    def load(name: str) -> Iterator[np.ndarray]:
        return (np.load(folder / f"{side}.{name}.npy") for folder in folders)

    counts = [json.loads((f / f"{side}.counts.json").read_text()) for f in folders]
    total = {key: sum(one[key] for one in counts) for key in COUNTS}
    num_examples = write_array(f"{stem}.hashes.npy", load("hashes"), np.uint64)[0]
    dtype = next(load("tokens")).dtype if folders else np.uint16
    _, total["digest"] = write_array(f"{stem}.tokens.npy", load("tokens"), dtype)
    offsets = _cumulative_offsets(load("lengths"))
    num_offsets, _ = write_array(f"{stem}.offsets.npy", offsets, np.int64)
    assert num_offsets == num_examples + 1, stem
    Path(f"{stem}.counts.json").write_text(json.dumps(total), encoding="utf8")


def _cumulative_offsets(lengths: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    end = 0
    yield np.zeros(1, np.int64)
    for part in lengths:
        yield end + np.cumsum(part, dtype=np.int64)
        end += int(part.sum())


def write_array(
    path: str, parts: Iterable[np.ndarray], dtype: np.dtype
) -> tuple[int, str]:
    """Writes the concatenation of arrays as .npy; returns its length and digest.

    A memory map would keep the pages that were written in memory.
    """
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0,)}
    size, digest = 0, hashlib.sha256()
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        for part in parts:
            file.write(part.astype(dtype, copy=False).data)
            digest.update(part.data)
            size += len(part)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (size,)})
        assert file.tell() == begin, path  # a header has one length for any size
    return size, digest.hexdigest()[:16]
