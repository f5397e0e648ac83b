"""Batches of sentence pairs.

Batch k is a function of the corpus, the seed and k alone. An epoch holds every
pair exactly once; where a bucket does not fill its last batch, rows of weight 0
do.
"""

import numpy as np

from data.buckets import Bucket, Plan
from data.encoding import Encoded
from data.permutation import Permutation
from data.tokenizers import BOS, PAD

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

    def _members(self, epoch: int, place: int) -> tuple[Bucket, np.ndarray]:
        """The bucket of a batch and the numbers of its pairs."""
        if self.seed is not None:
            order = Permutation(self.epoch_length, self.seed, epoch)
            place = int(order[np.asarray([place])][0])
        number = int(np.searchsorted(self.ends, place, side="right"))
        bucket = self.plan.buckets[number]
        start = (place - int(self.ends[number]) + bucket.num_batches) * bucket.rows
        places = np.arange(start, min(start + bucket.rows, len(bucket.members)))
        if self.seed is not None:
            order = Permutation(len(bucket.members), self.seed, epoch, number + 1)
            places = order[places]
        return bucket, np.asarray(bucket.members[places])

    def _batch(self, bucket, members, some: slice) -> dict[str, np.ndarray]:
        source, source_mask = rows_of(self.source, members, bucket.rows, bucket.source)
        labels, target_mask = rows_of(self.target, members, bucket.rows, bucket.target)
        target_in = np.concatenate(
            [np.full((bucket.rows, 1), BOS, labels.dtype), labels[:, :-1]], axis=1
        )
        ids = np.full(bucket.rows, -1, np.int32)
        ids[: len(members)] = members
        batch = {
            "source": source,
            "source_mask": source_mask,
            "target_in": np.where(target_mask, target_in, PAD),
            "target_mask": target_mask,
            "labels": labels,
            "weights": target_mask.astype(np.float32),
            "reset": np.ones(bucket.rows, bool),
            "ids": ids,
        }
        return {name: array[some] for name, array in batch.items()}


def rows_of(
    side: Encoded, members: np.ndarray, rows: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Examples as rows of tokens and a mask; rows without one are padding."""
    start = np.zeros(rows, np.int64)
    length = np.zeros(rows, np.int64)
    start[: len(members)] = side.offsets[members]
    # Not side.lengths, which is as long as the corpus.
    length[: len(members)] = side.offsets[members + 1] - side.offsets[members]
    places = np.arange(width)
    mask = places < length[:, None]
    found = side.tokens[np.where(mask, start[:, None] + places, 0)]
    return np.where(mask, found, PAD).astype(np.int32), mask
