"""Bucketed batches of sentence pairs.

Batch k is a function of the corpus, the seed and k alone. An epoch holds every pair
exactly once; rows of weight 0 fill the last batch of a bucket.
"""

from collections.abc import Sequence

import numpy as np

from data.batching.buckets import BatchPlan, Bucket
from data.batching.shuffle import Permutation
from data.token_cache import TokenizedSplit
from data.tokenizers.base import BOS, PAD


class BucketedBatches:
    """`batches[k]` for any k >= 0, in another order in each epoch.

    Attributes:
      plan: the shapes and their pairs.
      seed: seed of the order; None: in the order of the buckets, for evaluation.
      epoch_length: number of batches of an epoch.
    """

    def __init__(
        self,
        source: TokenizedSplit,
        target: TokenizedSplit,
        plan: BatchPlan,
        seed: int | None = None,
    ):
        self.source, self.target, self.plan, self.seed = source, target, plan, seed
        self.ends = np.cumsum([bucket.num_batches for bucket in plan.buckets])
        self.epoch_length = int(self.ends[-1])

    def __len__(self) -> int:
        return self.epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.partial_batch(k, slice(None))

    def num_examples(self, k: int) -> int:
        """Returns the number of rows of batch k, those of weight 0 included."""
        number, _ = self._locate(*divmod(k, self.epoch_length))
        return self.plan.buckets[number].batch_size

    def partial_batch(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Returns some rows of batch k, such as those of one host."""
        bucket, members = self._read_members(*divmod(k, self.epoch_length))
        indices = np.full(bucket.batch_size, -1)
        indices[: len(members)] = members
        indices, widths = indices[rows], (bucket.source, bucket.target)
        reset = np.ones(len(indices), bool)
        return pair_batch(self.source, self.target, indices, widths, reset)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Distinct shapes (B, S, T), each of which is compiled once."""
        return sorted({(b.batch_size, b.source, b.target) for b in self.plan.buckets})

    @property
    def padding_fraction(self) -> float:
        """Fraction of padding in an epoch's batches."""
        return self.plan.padding_fraction

    def _locate(self, epoch: int, index: int) -> tuple[int, int]:
        """Returns the bucket number of a batch, and its index in stored order."""
        if self.seed is not None:
            order = Permutation(self.epoch_length, self.seed, epoch)
            index = int(order[np.asarray([index])][0])
        return int(np.searchsorted(self.ends, index, side="right")), index

    def _read_members(self, epoch: int, index: int) -> tuple[Bucket, np.ndarray]:
        """Returns the bucket of a batch and the indices of its pairs."""
        number, index = self._locate(epoch, index)
        bucket = self.plan.buckets[number]
        first = index - int(self.ends[number]) + bucket.num_batches
        start = first * bucket.batch_size
        stop = min(start + bucket.batch_size, len(bucket.members))
        positions = np.arange(start, stop)
        if self.seed is not None:
            order = Permutation(len(bucket.members), self.seed, epoch, number + 1)
            positions = order[positions]
        return bucket, np.asarray(bucket.members[positions])


class RotatingSegmentations:
    """`batches[k]` of the same pairs in several segmentations, one for each epoch.

    Attributes:
      segmentations: their batches, of the same shapes.
      epoch_length: number of batches of the first epoch; others may differ slightly.
    """

    def __init__(self, segmentations: Sequence[BucketedBatches]):
        self.segmentations = list(segmentations)
        self.ends = np.cumsum([one.epoch_length for one in segmentations])
        self.epoch_length = segmentations[0].epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.partial_batch(k, slice(None))

    def num_examples(self, k: int) -> int:
        """Returns the number of rows of batch k, those of weight 0 included."""
        batches, k = self._locate(k)
        return batches.num_examples(k)

    def partial_batch(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Returns some rows of batch k, such as those of one host."""
        batches, k = self._locate(k)
        return batches.partial_batch(k, rows)

    def _locate(self, k: int) -> tuple[BucketedBatches, int]:
        """Returns the segmentation of batch k, and the batch's number in it."""
        rotation, index = divmod(k, int(self.ends[-1]))
        number = int(np.searchsorted(self.ends, index, side="right"))
        batches = self.segmentations[number]
        index -= int(self.ends[number]) - batches.epoch_length
        epoch = rotation * len(self.segmentations) + number  # distinct orders
        return batches, epoch * batches.epoch_length + index

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Distinct shapes (B, S, T), each of which is compiled once."""
        return sorted({shape for one in self.segmentations for shape in one.shapes})

    @property
    def padding_fraction(self) -> float:
        """Fraction of padding in the epochs of all segmentations."""
        fractions = [one.padding_fraction for one in self.segmentations]
        return float(np.average(fractions, weights=self.padded_tokens))

    @property
    def padded_tokens(self) -> list[int]:
        """Tokens and padding of an epoch of each segmentation."""
        return [
            sum(b.num_batches * b.batch_size * b.padded_tokens for b in buckets)
            for buckets in (one.plan.buckets for one in self.segmentations)
        ]


def pair_batch(
    source: TokenizedSplit,
    target: TokenizedSplit,
    indices: np.ndarray,
    widths: tuple[int, int],
    reset: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns sentence pairs as the arrays that a model takes.

    Args:
      indices: index of the pair in each row; -1: a padding row of weight 0.
      widths: padded lengths of source and target.
      reset: rows whose carry is to be reset.
    """
    sources, source_mask = pad_examples(source, indices, widths[0])
    labels, target_mask = pad_examples(target, indices, widths[1])
    first = np.full((len(indices), 1), BOS, labels.dtype)
    target_in = np.concatenate([first, labels[:, :-1]], axis=1)
    return {
        "source": sources,
        "source_mask": source_mask,
        "target_in": np.where(target_mask, target_in, PAD),
        "target_mask": target_mask,
        "labels": labels,
        "weights": target_mask.astype(np.float32),
        "reset": reset,
        "ids": indices.astype(np.int32),
    }


def pad_examples(
    side: TokenizedSplit, indices: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns examples padded to `width` and their mask; index -1 gives padding."""
    example = np.maximum(indices, 0)
    start = side.offsets[example].astype(np.int64)
    # `side.lengths` would compute the lengths of the whole corpus.
    length = np.where(indices < 0, 0, side.offsets[example + 1] - start)
    positions = np.arange(width)
    mask = positions < length[:, None]
    tokens = side.tokens[np.where(mask, start[:, None] + positions, 0)]
    return np.where(mask, tokens, PAD).astype(np.int32), mask
