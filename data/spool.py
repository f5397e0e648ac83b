"""Examples on their way to a prepared corpus, in their order, on disk.

TFDS gathers a split in memory, and from 1 GB on in files that it opens with
TensorFlow. Examples that keep their order need neither: they are written behind one
another and read again.
"""

import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<qQ")  # key, bytes


class Spool:
    """Stands for `tensorflow_datasets.core.shuffle.Shuffler` without shuffling.

    Attributes:
      size: bytes of all examples.
      num_examples: so far.
    """

    def __init__(self, dirpath: str | os.PathLike, hash_salt: str | bytes = "", **_):
        """Args: dirpath: a folder for a file that is gone when all is read."""
        del hash_salt  # of keys that are shuffled
        self._path = Path(dirpath) / f"spool-{uuid.uuid4()}.tmp"
        self._file = None
        self._last = -1
        self.size = self.num_examples = 0

    @property
    def bucket_lengths(self) -> list[int]:
        """Examples of each part: there is one."""
        return [self.num_examples]

    def add(self, key: int, data: bytes) -> None:
        """Raises ValueError for a key that is not larger than those before."""
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
