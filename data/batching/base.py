"""The interface of training batches."""

import abc

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
