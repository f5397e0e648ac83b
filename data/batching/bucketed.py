"""Batches of sentence pairs.

Batch k is a function of the corpus, the seed and k alone. An epoch holds every
pair exactly once; where a bucket does not fill its last batch, rows of weight 0
do.
"""

from collections.abc import Sequence

import numpy as np

from data.batching.buckets import Bucket, Plan
from data.batching.shuffle import Permutation
from data.token_cache.reader import Encoded
from data.tokenizers.serialization import BOS, PAD

EVERY_ROW = slice(None)


class SentenceBatches:
    """`batches[k]` for any k >= 0, in an order that differs from epoch to epoch.

    Attributes:
      plan: the shapes and which pairs they hold.
      epoch_length: batches.
    """

    def __init__(
        self, source: Encoded, target: Encoded, plan: Plan, seed: int | None = None
    ):
        """With `seed` None the order is that of the buckets, for evaluation."""
        self.source, self.target, self.plan, self.seed = source, target, plan, seed
        self.ends = np.cumsum([bucket.num_batches for bucket in plan.buckets])
        self.epoch_length = int(self.ends[-1])

    def __len__(self) -> int:
        return self.epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.part(k, EVERY_ROW)

    def num_rows(self, k: int) -> int:
        """Of batch k, those of weight 0 included."""
        number, _ = self._place(*divmod(k, self.epoch_length))
        return self.plan.buckets[number].rows

    def part(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch k, such as those of one host."""
        bucket, members = self._members(*divmod(k, self.epoch_length))
        return self._batch(bucket, members, rows)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(rows, S, T) of every bucket: as many compilations as these."""
        return sorted({(b.rows, b.source, b.target) for b in self.plan.buckets})

    @property
    def padding(self) -> float:
        """Share of an epoch's places that hold no token."""
        return self.plan.padding

    def _place(self, epoch: int, place: int) -> tuple[int, int]:
        """The number of a batch's bucket, and where in stored order it stands."""
        if self.seed is not None:
            order = Permutation(self.epoch_length, self.seed, epoch)
            place = int(order[np.asarray([place])][0])
        return int(np.searchsorted(self.ends, place, side="right")), place

    def _members(self, epoch: int, place: int) -> tuple[Bucket, np.ndarray]:
        """The bucket of a batch and the numbers of its pairs."""
        number, place = self._place(epoch, place)
        bucket = self.plan.buckets[number]
        start = (place - int(self.ends[number]) + bucket.num_batches) * bucket.rows
        places = np.arange(start, min(start + bucket.rows, len(bucket.members)))
        if self.seed is not None:
            order = Permutation(len(bucket.members), self.seed, epoch, number + 1)
            places = order[places]
        return bucket, np.asarray(bucket.members[places])

    def _batch(self, bucket, members, some: slice) -> dict[str, np.ndarray]:
        numbers = np.full(bucket.rows, -1)
        numbers[: len(members)] = members
        numbers, widths = numbers[some], (bucket.source, bucket.target)
        every = np.ones(len(numbers), bool)
        return pair_batch(self.source, self.target, numbers, widths, every)


class CopiesInTurn:
    """`batches[k]` of the same pairs in several segmentations: a copy an epoch.

    Attributes:
      copies: their batches, of the same shapes.
      epoch_length: batches of the first epoch; others may have a few more or less.
    """

    def __init__(self, copies: Sequence[SentenceBatches]):
        self.copies = list(copies)
        self.ends = np.cumsum([copy.epoch_length for copy in copies])
        self.epoch_length = copies[0].epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.part(k, slice(None))

    def num_rows(self, k: int) -> int:
        """Of batch k, those of weight 0 included."""
        copy, k = self._of_copy(k)
        return copy.num_rows(k)

    def part(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch k, such as those of one host."""
        copy, k = self._of_copy(k)
        return copy.part(k, rows)

    def _of_copy(self, k: int) -> tuple[SentenceBatches, int]:
        """The copy that batch k is of, and its number there."""
        turn, place = divmod(k, int(self.ends[-1]))
        number = int(np.searchsorted(self.ends, place, side="right"))
        copy = self.copies[number]
        place -= int(self.ends[number]) - copy.epoch_length
        epoch = turn * len(self.copies) + number  # so that each has its own order
        return copy, epoch * copy.epoch_length + place

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(rows, S, T): as many compilations as these."""
        return sorted({shape for copy in self.copies for shape in copy.shapes})

    @property
    def padding(self) -> float:
        """Share of the places of all copies that hold no token."""
        return float(np.average([c.padding for c in self.copies], weights=self.places))

    @property
    def places(self) -> list[int]:
        """For tokens, in an epoch of each copy."""
        return [
            sum(bucket.num_batches * bucket.rows * bucket.places for bucket in buckets)
            for buckets in (copy.plan.buckets for copy in self.copies)
        ]


def pair_batch(
    source: Encoded,
    target: Encoded,
    numbers: np.ndarray,
    widths: tuple[int, int],
    reset: np.ndarray,
) -> dict[str, np.ndarray]:
    """Sentence pairs as a model takes them.

    Args:
      numbers: of the pair in each row; -1: none, the row is padding of weight 0.
      widths: of source and target.
      reset: whether a row begins anew.
    """
    sources, source_mask = rows_of(source, numbers, widths[0])
    labels, target_mask = rows_of(target, numbers, widths[1])
    first = np.full((len(numbers), 1), BOS, labels.dtype)
    target_in = np.concatenate([first, labels[:, :-1]], axis=1)
    return {
        "source": sources,
        "source_mask": source_mask,
        "target_in": np.where(target_mask, target_in, PAD),
        "target_mask": target_mask,
        "labels": labels,
        "weights": target_mask.astype(np.float32),
        "reset": reset,
        "ids": numbers.astype(np.int32),
    }


def rows_of(
    side: Encoded, numbers: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Examples as rows of tokens and a mask; the row of number -1 is padding."""
    first = np.maximum(numbers, 0)
    start = side.offsets[first].astype(np.int64)
    # Not side.lengths, which is as long as the corpus.
    length = np.where(numbers < 0, 0, side.offsets[first + 1] - start)
    places = np.arange(width)
    mask = places < length[:, None]
    found = side.tokens[np.where(mask, start[:, None] + places, 0)]
    return np.where(mask, found, PAD).astype(np.int32), mask
