"""Replacements for private parts of TFDS, active only while it prepares a corpus.

- `OrderedShuffler` for `core.shuffle.Shuffler`: TFDS collects a split in memory, and
  from 1 GB on in files that it opens with TensorFlow, which is not installed.
- `core.download.downloader.MAX_RETRIES`: without a network, retries take minutes.
- `core.download.extractor.tf`: TFDS unpacks archives through TensorFlow's file API.
- `builder._split_generators`: progress messages without a progress bar.

`tests/data/test_tfds_patches.py` fails when TFDS changes one of them.
"""

import contextlib
import functools
import importlib.util
import os
import struct
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import downloader, extractor

HEADER = struct.Struct("<qQ")  # key, number of bytes
REPORT_SECONDS = 5  # between two progress messages


class OrderedShuffler:
    """Drop-in for TFDS's `Shuffler` that keeps the order of examples, in a file."""

    def __init__(self, dirpath: str | os.PathLike, *_, **__):
        """Prepares a file in `dirpath` that is deleted once it was read."""
        self._path = Path(dirpath) / f"spool-{uuid.uuid4()}.tmp"
        self._file = None
        self._last = -1
        self.size = self.num_examples = 0

    @property
    def bucket_lengths(self) -> list[int]:
        """Number of examples of each bucket, of which there is one."""
        return [self.num_examples]

    def add(self, key: int, data: bytes) -> None:
        """Appends an example. Raises ValueError unless keys ascend."""
        if key <= self._last:
            raise ValueError(f"example {key} comes after example {self._last}")
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        self._file.write(HEADER.pack(key, len(data)))
        self._file.write(data)
        self._last = key
        self.size += len(data)
        self.num_examples += 1

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        if self._file is None:
            return
        self._file.close()
        with self._path.open("rb") as file:
            while header := file.read(HEADER.size):
                key, size = HEADER.unpack(header)
                yield key, file.read(size)
        self._path.unlink()


@contextlib.contextmanager
def patched_tfds(builder) -> Iterator[None]:
    """Applies the patches of this module while `builder` prepares its corpus."""
    tensorflow = extractor.tf
    if importlib.util.find_spec("tensorflow") is None:
        tensorflow = SimpleNamespace(
            io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)),
            compat=SimpleNamespace(as_text=str),
        )
    if sys.stderr.isatty():
        _report_progress(builder)
    keep_order = builder.info.disable_shuffling
    shuffler = OrderedShuffler if keep_order else shuffle.Shuffler
    with (
        mock.patch.object(downloader, "MAX_RETRIES", 0),
        mock.patch.object(extractor, "tf", tensorflow),
        mock.patch.object(shuffle, "Shuffler", shuffler),
    ):
        yield


def _report_progress(builder) -> None:
    """Makes a builder print how many examples it has generated."""
    original = builder._split_generators

    @functools.wraps(original)  # TFDS inspects its parameters
    def split_generators(*args, **kwargs):
        return {
            split: _count(split, rows) if isinstance(rows, Iterator) else rows
            for split, rows in original(*args, **kwargs).items()
        }

    builder._split_generators = split_generators


def _count(split: str, examples: Iterator) -> Iterator:
    due = time.monotonic() + REPORT_SECONDS
    for number, example in enumerate(examples):
        if time.monotonic() > due:
            print(f"  {split}: {number} examples ...", file=sys.stderr)
            due = time.monotonic() + REPORT_SECONDS
        yield example
