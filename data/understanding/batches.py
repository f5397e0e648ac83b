"""Bucketed batches of a fixed number of texts, or pairs of texts, for encoders.

A text is [CLS] a [SEP] and a pair [CLS] a [SEP] b [SEP] (Devlin et al. 2019, section
3.1), with segment id 1 for b and its [SEP]. BOS is [CLS], EOS is [SEP].
"""

from collections.abc import Sequence

import numpy as np

from data.batching.base import Batch
from data.batching.bucketed import BucketedBatches
from data.batching.buckets import (
    BatchPlan,
    Bucket,
    assign_buckets,
    count_padded_tokens,
    merge_partial_batches,
)
from data.token_cache import TokenizedSplit
from data.tokenizers.base import BOS, EOS, PAD

# Lengths are rounded up to this many different ones, since the time to choose buckets
# grows with their number.
GRANULARITY = 64


class Texts:
    """The tokens of texts or pairs, cut to `max_length` tokens with [CLS] and [SEP].

    Of a pair, the longer text is cut (Devlin et al. 2019, their code).

    Attributes:
      sides: one side, or two.
      lengths: number of tokens of each example after the cut.
      num_cut: number of examples that are cut.
    """

    def __init__(self, sides: Sequence[TokenizedSplit], max_length: int):
        self.sides, self.max_length = list(sides), max_length
        whole = 1 + sum(side.lengths for side in self.sides)
        self.lengths = np.minimum(whole, max_length).astype(np.int32)
        self.num_cut = int((whole > max_length).sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the tokens of an example, and the number of those of segment 0."""
        first, *second = (_tokens(side, index) for side in self.sides)
        room = self.max_length - 2
        if not second:
            return np.concatenate([[BOS], first[:room], [EOS]]), len(first[:room]) + 2
        (second,) = second
        kept = cut_pair(len(first), len(second), room - 1)
        first, second = first[: kept[0]], second[: kept[1]]
        tokens = np.concatenate([[BOS], first, [EOS], second, [EOS]])
        return tokens, len(first) + 2


def _tokens(side: TokenizedSplit, index: int) -> np.ndarray:
    """Returns the tokens of an example without its EOS."""
    return side.tokens[side.offsets[index] : side.offsets[index + 1] - 1]


def cut_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns the lengths of two texts after the longer one is cut until both fit."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= room - half:
        return first, room - first
    if second <= half:
        return room - second, second
    return room - half, half


class TextBatches(BucketedBatches):
    """`batches[k]` of `batch_size` examples each, padded to the width of a bucket.

    Attributes:
      texts: examples; `texts[i]` is their tokens and the length of segment 0.
    """

    def __init__(
        self, texts, batch_size: int, num_buckets: int, seed: int | None = None
    ):
        self.texts, self.batch_size = texts, batch_size
        plan = plan_widths(texts.lengths, batch_size, num_buckets)
        super().__init__(texts, texts, plan, seed)
        self.shapes = sorted({(b.batch_size, b.source) for b in plan.buckets})

    def partial_batch(self, k, rows):
        bucket, indices = self.select(k)
        return self.make_batch(indices[rows], bucket.source)

    def make_batch(self, indices: np.ndarray, width: int) -> Batch:
        """Returns the arrays of examples; index -1: a row of padding."""
        shape = (len(indices), width)
        tokens, segment_ids = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
        mask = np.zeros(shape, bool)
        for row, index in enumerate(indices.tolist()):
            if index < 0:
                continue
            ids, first = self.texts[index]
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
            segment_ids[row, first : len(ids)] = 1
        return {
            "tokens": tokens,
            "segment_ids": segment_ids,
            "mask": mask,
            "reset": np.ones(len(indices), bool),
            "ids": indices.astype(np.int32),
        }


class LabeledBatches(TextBatches):
    """Batches of texts with a class or a grade each.

    Attributes:
      labels: ids of classes, -1 for an unknown one; or grades.
    """

    def __init__(self, texts, labels: np.ndarray, *args, **keywords):
        super().__init__(texts, *args, **keywords)
        self.labels = labels

    def make_batch(self, indices, width):
        labels = self.labels[np.maximum(indices, 0)]
        is_known = indices >= 0
        if self.labels.dtype == np.int32:
            is_known = is_known & (labels >= 0)
        return {
            **super().make_batch(indices, width),
            "labels": np.where(is_known, labels, 0).astype(self.labels.dtype),
            "weights": is_known.astype(np.float32),
        }


def plan_widths(lengths: np.ndarray, batch_size: int, num_buckets: int) -> BatchPlan:
    """Returns a plan of batches of equal size, of at most `num_buckets` widths."""
    step = max(1, int(lengths.max()) // GRANULARITY)
    rounded = np.minimum(-(-lengths // step) * step, lengths.max())
    assigned = assign_buckets(rounded, np.zeros_like(rounded), num_buckets)
    buckets = []
    for number in range(assigned.max() + 1):
        members = np.flatnonzero(assigned == number)
        width = int(lengths[members].max())
        buckets.append(Bucket(batch_size, width, 0, members))
    buckets = merge_partial_batches(buckets, lengths)
    padding = 1 - int(lengths.sum()) / count_padded_tokens(buckets)
    return BatchPlan(buckets, {}, padding)
