"""The interface of training batches, and batches without some that are left out."""

import abc
from collections.abc import Iterable
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


class TrainBatches(abc.ABC):
    """Batches of training; each is a function of the config and its number k alone.

    Attributes:
      shapes: distinct shapes, each of which is compiled once.
      epoch_length: number of batches of an epoch.
      batch_size: number of rows of every batch, where all have the same.
    """

    shapes: list[tuple[int, ...]]
    epoch_length: int
    batch_size: int

    def __getitem__(self, k: int) -> Batch:
        return self.partial_batch(k, slice(None))

    def num_examples(self, k: int) -> int:
        """Returns the number of rows of batch k, those of weight 0 included."""
        del k
        return self.batch_size

    @abc.abstractmethod
    def partial_batch(self, k: int, rows: slice) -> Batch:
        """Returns some rows of batch k >= 0, such as those of one host."""


class SkippingBatches(TrainBatches):
    """Batches of which batch k is the k-th, counted from 0, that is not left out.

    Where batches continue each other, a row that starts a new text in a batch that is
    left out starts it in the batch after that.

    Attributes:
      batches: all batches, whose other attributes this object has, too.
      skipped: numbers of the batches that are left out, in ascending order.
    """

    def __init__(self, batches: TrainBatches):
        self.batches = batches
        self.skipped: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def skip(self, numbers: Iterable[int]) -> None:
        """Replaces the numbers of the batches that are left out."""
        self.skipped = sorted(numbers)

    def number(self, k: int) -> int:
        """Returns the number of batch k among all batches."""
        for skipped in self.skipped:
            k += skipped <= k
        return k

    def num_examples(self, k: int) -> int:
        return self.batches.num_examples(self.number(k))

    def partial_batch(self, k: int, rows: slice) -> Batch:
        number = self.number(k)
        batch = self.batches.partial_batch(number, rows)
        is_continued = hasattr(self.batches, "batch_size") and "reset" in batch
        while is_continued and (number := number - 1) in self.skipped:
            before = self.batches.partial_batch(number, rows)
            batch["reset"] = batch["reset"] | before["reset"]
        return batch
