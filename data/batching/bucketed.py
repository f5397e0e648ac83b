"""Bucketed batches of sentence pairs.

Batch k is a function of the corpus, the seed and k alone. An epoch holds every pair
exactly once; rows of weight 0 fill the last batch of a bucket.
"""

from collections.abc import Sequence

import numpy as np

from data.batching.base import Batch, TrainBatches
from data.batching.buckets import BatchPlan, Bucket
from data.batching.shuffle import Permutation
from data.token_cache import TokenizedSplit
from data.tokenizers.base import BOS, PAD


class BucketedBatches(TrainBatches):
    """`batches[k]` for any k >= 0, in another order in each epoch.

    Attributes:
      plan: the shapes and their pairs.
      seed: seed of the order; None: in the order of the buckets, for evaluation.
    """

    def __init__(
        self,
        source: TokenizedSplit,
        target: TokenizedSplit,
        plan: BatchPlan,
        seed: int | None = None,
    ):
        self.source, self.target, self.plan, self.seed = source, target, plan, seed
        self.padding_fraction = plan.padding_fraction
        self.ends = np.cumsum([bucket.num_batches for bucket in plan.buckets])
        self.epoch_length = int(self.ends[-1])
        self.shapes = sorted({(b.batch_size, b.source, b.target) for b in plan.buckets})

    def __len__(self) -> int:
        return self.epoch_length

    def num_examples(self, k):
        return self.plan.buckets[self._locate(k)[1]].batch_size

    def partial_batch(self, k, rows):
        bucket, indices = self.select(k)
        indices, widths = indices[rows], (bucket.source, bucket.target)
        reset = np.ones(len(indices), bool)
        return pair_batch(self.source, self.target, indices, widths, reset)

    def select(self, k: int) -> tuple[Bucket, np.ndarray]:
        """Returns the bucket of batch k and the indices of its rows; -1: padding."""
        epoch, number, first = self._locate(k)
        bucket = self.plan.buckets[number]
        start = first * bucket.batch_size
        stop = min(start + bucket.batch_size, len(bucket.members))
        positions = np.arange(start, stop)
        if self.seed is not None:
            order = Permutation(len(bucket.members), self.seed, epoch, number + 1)
            positions = order[positions]
        indices = np.full(bucket.batch_size, -1)
        indices[: len(positions)] = bucket.members[positions]
        return bucket, indices

    def _locate(self, k: int) -> tuple[int, int, int]:
        """Returns the epoch of batch k, its bucket's number, and its index there."""
        epoch, index = divmod(k, self.epoch_length)
        if self.seed is not None:
            order = Permutation(self.epoch_length, self.seed, epoch)
            index = int(order[np.asarray([index])][0])
        number = int(np.searchsorted(self.ends, index, side="right"))
        first = int(self.ends[number]) - self.plan.buckets[number].num_batches
        return epoch, number, index - first


class RotatingSegmentations(TrainBatches):
    """`batches[k]` of the same pairs in several segmentations, one for each epoch.

    Attributes:
      segmentations: their batches, of the same shapes.
      epoch_length: number of batches of the first epoch; others may differ slightly.
    """

    def __init__(self, segmentations: Sequence[BucketedBatches]):
        self.segmentations = list(segmentations)
        self.ends = np.cumsum([one.epoch_length for one in segmentations])
        self.epoch_length = segmentations[0].epoch_length
        self.shapes = sorted({shape for one in segmentations for shape in one.shapes})
        fractions = [one.padding_fraction for one in segmentations]
        padded = [one.plan.padded_tokens for one in segmentations]
        self.padding_fraction = float(np.average(fractions, weights=padded))

    def num_examples(self, k):
        batches, k = self._locate(k)
        return batches.num_examples(k)

    def partial_batch(self, k, rows):
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


def pair_batch(
    source: TokenizedSplit,
    target: TokenizedSplit,
    indices: np.ndarray,
    widths: tuple[int, int],
    reset: np.ndarray,
) -> Batch:
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
