"""Buckets of sentence pairs: a few batch shapes with little padding.

Every pair goes into the cheapest shape that holds it. The shapes are chosen in two
steps: the pairs are split in two, again and again, where that saves most padding; then
each side of each shape is changed by a few tokens as long as that saves more.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.storage import atomic_directory
from data.token_cache import TokenizedSplit
from utils.paths import is_read_only

MAX_COUNTED = 2**24  # values up to which counting needs no sorting
MAX_CHANGE = 4  # tokens by which a side of a shape changes at once
NEVER = np.iinfo(np.int64).max // 2**32  # cost of a pair that no shape holds


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A batch shape and the pairs that are padded to it.

    Attributes:
      batch_size: number of pairs of a batch (B).
      source, target: padded lengths S and T.
      members: indices of the pairs.
    """

    batch_size: int
    source: int
    target: int
    members: np.ndarray

    @property
    def num_batches(self) -> int:
        """Number of batches of an epoch."""
        return -(-len(self.members) // self.batch_size)

    @property
    def padded_tokens(self) -> int:
        """Number of tokens of a padded pair."""
        return self.source + self.target


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """The buckets of a split.

    Attributes:
      dropped: number of pairs that are filtered out, by reason.
      padding_fraction: fraction of padding in an epoch's batches.
    """

    buckets: list[Bucket]
    dropped: dict[str, int]
    padding_fraction: float

    @property
    def padded_tokens(self) -> int:
        """Number of tokens of an epoch, with padding."""
        return count_padded_tokens(self.buckets)


def count_padded_tokens(buckets: list[Bucket]) -> int:
    """Returns the number of tokens of an epoch of all buckets, with padding."""
    return sum(b.num_batches * b.batch_size * b.padded_tokens for b in buckets)


def plan_batches(
    source: TokenizedSplit,
    target: TokenizedSplit,
    num_buckets: int,
    tokens_per_batch: int,
) -> BatchPlan:
    """Returns a plan for all pairs of a split."""
    indices, pairs = np.arange(len(source.offsets) - 1), [(source, target)]
    return plan_segmentations(pairs, num_buckets, tokens_per_batch, indices, {})[0]


def plan_segmentations(
    segmentations: list[tuple[TokenizedSplit, TokenizedSplit]],
    num_buckets: int,
    tokens_per_batch: int,
    indices: np.ndarray,
    dropped: dict[str, int],
) -> list[BatchPlan]:
    """Returns a plan for each segmentation of the same pairs, all of the same shapes.

    Args:
      indices: the pairs to use.
      dropped: number of the other pairs, by reason.
    """
    all_lengths = [
        np.stack([side.lengths[indices] for side in sides], axis=1)
        for sides in segmentations
    ]
    all_buckets = make_buckets(all_lengths, num_buckets, tokens_per_batch)
    plans = []
    for lengths, buckets in zip(all_lengths, all_buckets, strict=True):
        padded = count_padded_tokens(buckets)
        buckets = [dataclasses.replace(b, members=indices[b.members]) for b in buckets]
        plans.append(BatchPlan(buckets, dropped, 1 - int(lengths.sum()) / padded))
    return plans


def make_buckets(
    segmentations: list[np.ndarray], num_buckets: int, tokens_per_batch: int
) -> list[list[Bucket]]:
    """Returns at most `num_buckets` buckets for each segmentation, of equal shapes.

    A batch has `tokens_per_batch` / (its longer side) pairs.

    Args:
      segmentations: source and target lengths of the same pairs, [N, 2] each.
    """
    pool = np.concatenate(segmentations)
    assigned = assign_buckets(pool[:, 0], pool[:, 1], num_buckets)
    shapes = [
        pool[assigned == i].max(axis=0).tolist() for i in range(assigned.max() + 1)
    ]
    shapes = [(max(1, tokens_per_batch // max(s, t)), s, t) for s, t in shapes]
    result = []
    per_segmentation = np.split(assigned, len(segmentations))
    for lengths, numbers in zip(segmentations, per_segmentation, strict=True):
        buckets = [
            Bucket(*shape, np.flatnonzero(numbers == i))
            for i, shape in enumerate(shapes)
        ]
        result.append(merge_partial_batches(buckets, lengths.sum(axis=1)))
    return result


def merge_partial_batches(buckets: list[Bucket], lengths: np.ndarray) -> list[Bucket]:
    """Reduces the number of batches by moving the pairs of incomplete ones.

    The longest pairs of a bucket, as many as its last batch holds, move to the smallest
    bucket with room for them, if that adds fewer padded tokens than the batch has.
    """
    order = sorted(buckets, key=lambda bucket: bucket.padded_tokens)
    for number, bucket in enumerate(order):
        excess = len(bucket.members) % bucket.batch_size
        larger = [
            i
            for i, other in enumerate(order[number + 1 :], number + 1)
            if other.source >= bucket.source and other.target >= bucket.target
        ]
        if not excess or not larger:
            continue
        other = order[larger[0]]
        if excess * other.padded_tokens >= bucket.batch_size * bucket.padded_tokens:
            continue
        ranked = bucket.members[np.argsort(lengths[bucket.members], kind="stable")]
        stay, move = np.sort(ranked[:-excess]), ranked[-excess:]
        order[number] = dataclasses.replace(bucket, members=stay)
        merged = np.sort(np.concatenate([other.members, move]))
        order[larger[0]] = dataclasses.replace(other, members=merged)
    return [bucket for bucket in order if len(bucket.members)]


def open_plan(folder: Path, make: Callable[[], BatchPlan]) -> BatchPlan:
    """Reads the plan stored in a folder, after making and storing it once.

    Where the folder cannot be written, the plan is made for each run.
    """
    if not folder.exists():
        plan = make()
        document = {
            "shapes": [
                [b.batch_size, b.source, b.target, len(b.members)] for b in plan.buckets
            ],
            "dropped": plan.dropped,
            "padding": plan.padding_fraction,
        }
        members = np.concatenate([bucket.members for bucket in plan.buckets])
        try:
            with atomic_directory(folder) as draft:
                np.save(draft / "members.npy", members)
                (draft / "plan.json").write_text(json.dumps(document), encoding="utf8")
        except OSError as error:
            if not is_read_only(error):
                raise
            return plan
    document = json.loads((folder / "plan.json").read_text(encoding="utf8"))
    members = np.load(folder / "members.npy", mmap_mode="r")
    buckets, start = [], 0
    for *shape, count in document["shapes"]:
        buckets.append(Bucket(*shape, members[start : start + count]))
        start += count
    return BatchPlan(buckets, document["dropped"], document["padding"])


# --- Choice of the shapes ---


def assign_buckets(
    source_lengths: np.ndarray, target_lengths: np.ndarray, num_buckets: int
) -> np.ndarray:
    """Returns the bucket number of each pair, below `num_buckets`."""
    base = int(target_lengths.max()) + 1
    codes = source_lengths.astype(np.int64) * base + target_lengths
    unique, counts, unique_index = count_values(codes)
    pairs = np.stack([unique // base, unique % base], axis=1)
    shapes = refine_shapes(pairs, counts, split_shapes(pairs, counts, num_buckets))
    chosen, _ = cheapest_shapes(pairs, shapes)
    used = np.unique(chosen, return_inverse=True)[1]
    return used.ravel()[unique_index]


def split_shapes(pairs: np.ndarray, counts: np.ndarray, num_shapes: int) -> np.ndarray:
    """Returns at most `num_shapes` shapes, [C, 2], by splitting the worst bucket.

    Args:
      pairs: the distinct pairs of lengths, [K, 2].
      counts: number of occurrences of each, [K].
    """
    bucket = np.zeros(len(pairs), np.int64)
    for new in range(1, num_shapes):
        splits = []
        for number, side in itertools.product(range(new), (0, 1)):
            inside = bucket == number
            lengths, others = pairs[inside, side], pairs[inside, 1 - side]
            splits.append((*best_split(lengths, others, counts[inside]), number, side))
        saved, limit, number, side = max(splits)
        if saved <= 0:
            break
        bucket[(bucket == number) & (pairs[:, side] > limit)] = new
    parts = [pairs[bucket == number] for number in range(bucket.max() + 1)]
    return np.stack([part.max(axis=0) for part in parts])


def best_split(
    lengths: np.ndarray, others: np.ndarray, counts: np.ndarray
) -> tuple[float, int]:
    """Finds the split of `lengths` in two that saves most padding.

    Args:
      lengths, others: lengths of both sides of the distinct pairs.
      counts: number of pairs of each.

    Returns:
      The padded tokens saved, and the longest length below the split.
    """
    order = np.argsort(lengths, kind="stable")
    lengths, others, counts = lengths[order], others[order], counts[order]
    total = np.cumsum(counts)
    low = lengths + np.maximum.accumulate(others)
    high = lengths[-1] + np.maximum.accumulate(others[::-1])[::-1]
    cost = total[:-1] * low[:-1] + (total[-1] - total[:-1]) * high[1:]
    saved = total[-1] * high[0] - cost
    saved[lengths[:-1] == lengths[1:]] = -1
    if not len(saved):
        return -1, 0
    index = int(saved.argmax())
    return float(saved[index]), int(lengths[index])


def refine_shapes(
    pairs: np.ndarray, counts: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
    """Changes sides of shapes by a few tokens until none saves padding."""
    changes = [sign * size for size in range(1, MAX_CHANGE + 1) for sign in (-1, 1)]
    best, previous = (cheapest_shapes(pairs, shapes)[1] * counts).sum(), None
    while previous is None or best < previous:
        previous = best
        for number, side, change in itertools.product(
            range(len(shapes)), (0, 1), changes
        ):
            changed = shapes.copy()
            changed[number, side] += change
            cost = (cheapest_shapes(pairs, changed)[1] * counts).sum()
            if cost < best:
                shapes, best = changed, cost
    return shapes


def cheapest_shapes(
    pairs: np.ndarray, shapes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cheapest shape of each pair, and its tokens or NEVER if none fits."""
    holds = (pairs[:, None] <= shapes[None]).all(axis=-1)
    cost = np.where(holds, shapes.sum(axis=1), NEVER)
    chosen = cost.argmin(axis=1)
    return chosen, cost[np.arange(len(pairs)), chosen]


def count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the distinct values, their counts, and the inverse indices.

    Like `np.unique`, but small values are not sorted, which saves gigabytes for a large
    corpus.
    """
    if values.max() > MAX_COUNTED:
        unique, index, counts = np.unique(
            values, return_inverse=True, return_counts=True
        )
        return unique, counts, index
    counts = np.bincount(values)
    unique = np.flatnonzero(counts)
    index = np.zeros(len(counts), np.int32)
    index[unique] = np.arange(len(unique))
    return unique, counts[unique], index[values]
