"""Batches of sentence pairs: a short list of shapes under a budget of tokens.

Batch k is a function of the corpus, the seed and k alone. An epoch holds every
pair exactly once; where a bucket does not fill its last batch, rows of weight 0
do.
"""

import dataclasses
import functools

import numpy as np

from data.bucket_shapes import bucket_numbers
from data.encoding import Encoded
from data.tokenizers import BOS, PAD


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A shape and the pairs that go into it.

    Attributes:
      rows, source, target: the shape of its batches, R x S and R x T.
      members: numbers of the pairs.
    """

    rows: int
    source: int
    target: int
    members: np.ndarray

    @property
    def num_batches(self) -> int:
        """In an epoch."""
        return -(-len(self.members) // self.rows)

    @property
    def places(self) -> int:
        """For tokens of a pair."""
        return self.source + self.target

    def holds(self, other: "Bucket") -> bool:
        """Whether the pairs of another bucket fit into this one."""
        return self.source >= other.source and self.target >= other.target


def make_buckets(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    count: int,
    batch_tokens: int,
) -> list[Bucket]:
    """At most `count` buckets; rows = batch_tokens / the longer side."""
    part = bucket_numbers(source_lengths, target_lengths, count)
    buckets = []
    for number in range(part.max() + 1):
        members = np.flatnonzero(part == number)
        source = int(source_lengths[members].max())
        target = int(target_lengths[members].max())
        rows = max(1, batch_tokens // max(source, target))
        buckets.append(Bucket(rows, source, target, members))
    return without_loose_ends(buckets, source_lengths + target_lengths)


def without_loose_ends(buckets: list[Bucket], lengths: np.ndarray) -> list[Bucket]:
    """The same pairs in fewer batches.

    What does not fill a bucket's last batch, its longest pairs, moves on to the
    smallest bucket with room for them on both sides, where that costs fewer places
    than a batch that is mostly empty.
    """
    order = sorted(buckets, key=lambda bucket: bucket.places)
    for number, bucket in enumerate(order):
        loose = len(bucket.members) % bucket.rows
        larger = [i for i in range(number + 1, len(order)) if order[i].holds(bucket)]
        if not loose or not larger:
            continue
        other = order[larger[0]]
        if loose * other.places >= bucket.rows * bucket.places:
            continue
        ranked = bucket.members[np.argsort(lengths[bucket.members], kind="stable")]
        stay, move = np.sort(ranked[:-loose]), ranked[-loose:]
        order[number] = dataclasses.replace(bucket, members=stay)
        joined = np.sort(np.concatenate([other.members, move]))
        order[larger[0]] = dataclasses.replace(other, members=joined)
    return [bucket for bucket in order if len(bucket.members)]


class SentenceBatches:
    """`batches[k]` for any k >= 0, in an order that differs from epoch to epoch.

    Attributes:
      buckets: the shapes.
      num_dropped: pairs left out because a side is longer than `max_length`.
    """

    def __init__(
        self,
        source: Encoded,
        target: Encoded,
        *,
        count: int,
        batch_tokens: int,
        max_length: int | None = None,
        seed: int | None = None,
    ):
        """With `seed` None the order is that of the buckets, for evaluation."""
        self.source, self.target, self.seed = source, target, seed
        longer = np.maximum(source.lengths, target.lengths)
        kept = np.flatnonzero(longer <= (max_length or longer.max()))
        self.num_dropped = len(longer) - len(kept)
        self.buckets = [
            dataclasses.replace(bucket, members=kept[bucket.members])
            for bucket in make_buckets(
                source.lengths[kept], target.lengths[kept], count, batch_tokens
            )
        ]
        self.epoch_length = sum(bucket.num_batches for bucket in self.buckets)

    def __len__(self) -> int:
        return self.epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        bucket, members = self._plan(k // self.epoch_length)[k % self.epoch_length]
        return self._batch(self.buckets[bucket], members)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(rows, S, T) of every bucket: as many compilations as these."""
        return sorted({(b.rows, b.source, b.target) for b in self.buckets})

    @property
    def padding(self) -> float:
        """Share of a target's and source's places in an epoch that hold no token."""
        places = sum(
            bucket.num_batches * bucket.rows * bucket.places for bucket in self.buckets
        )
        kept = np.concatenate([bucket.members for bucket in self.buckets])
        tokens = self.source.lengths[kept].sum() + self.target.lengths[kept].sum()
        return 1 - tokens / places

    @functools.lru_cache(maxsize=2)  # noqa: B019 (batches live as long as the process)
    def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The epoch's batches: a bucket and the numbers of its pairs."""
        random = None
        if self.seed is not None:
            random = np.random.default_rng([self.seed, epoch])
        plan = []
        for number, bucket in enumerate(self.buckets):
            members = bucket.members
            if random is not None:
                members = random.permutation(members)
            for start in range(0, len(members), bucket.rows):
                plan.append((number, members[start : start + bucket.rows]))
        if random is None:
            return plan
        return [plan[i] for i in random.permutation(len(plan))]

    def _batch(self, bucket: Bucket, members: np.ndarray) -> dict[str, np.ndarray]:
        source, source_mask = rows_of(self.source, members, bucket.rows, bucket.source)
        labels, target_mask = rows_of(self.target, members, bucket.rows, bucket.target)
        target_in = np.concatenate(
            [np.full((bucket.rows, 1), BOS, labels.dtype), labels[:, :-1]], axis=1
        )
        ids = np.full(bucket.rows, -1, np.int32)
        ids[: len(members)] = members
        return {
            "source": source,
            "source_mask": source_mask,
            "target_in": np.where(target_mask, target_in, PAD),
            "target_mask": target_mask,
            "labels": labels,
            "weights": target_mask.astype(np.float32),
            "reset": np.ones(bucket.rows, bool),
            "ids": ids,
        }


def rows_of(
    side: Encoded, members: np.ndarray, rows: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Examples as rows of tokens and a mask; rows without one are padding."""
    start = np.zeros(rows, np.int64)
    length = np.zeros(rows, np.int64)
    start[: len(members)] = side.offsets[members]
    length[: len(members)] = side.lengths[members]
    places = np.arange(width)
    mask = places < length[:, None]
    found = side.tokens[np.where(mask, start[:, None] + places, 0)]
    return np.where(mask, found, PAD).astype(np.int32), mask
