"""Buckets of sentence pairs: a short list of shapes under a budget of tokens."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.batching.bucket_shapes import bucket_numbers
from data.storage import written_whole
from data.token_cache.reader import Encoded


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
    copies: list[np.ndarray], count: int, tokens_per_batch: int
) -> list[list[Bucket]]:
    """At most `count` buckets a copy, the shapes of all copies the same.

    A batch has tokens_per_batch / the longer side rows.

    Args:
      copies: lengths of source and target, [N, 2], of the same pairs.
    """
    pool = np.concatenate(copies)
    part = bucket_numbers(pool[:, 0], pool[:, 1], count)
    shapes = [pool[part == number].max(axis=0) for number in range(part.max() + 1)]
    found = []
    for lengths, own in zip(copies, np.split(part, len(copies)), strict=True):
        buckets = []
        for number, (source, target) in enumerate(shapes):
            rows = max(1, tokens_per_batch // int(max(source, target)))
            members = np.flatnonzero(own == number)
            buckets.append(Bucket(rows, int(source), int(target), members))
        found.append(without_loose_ends(buckets, lengths.sum(axis=1)))
    return found


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


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the pairs of a split are batched.

    Attributes:
      dropped: how many pairs are left out, by reason.
      padding: share of the places of an epoch's batches that hold no token.
    """

    buckets: list[Bucket]
    dropped: dict[str, int]
    padding: float


def make_plan(
    source: Encoded,
    target: Encoded,
    *,
    count: int,
    tokens_per_batch: int,
    kept: np.ndarray | None = None,
    dropped: dict[str, int] | None = None,
) -> Plan:
    """Buckets for the pairs with numbers in `kept`; None: for all."""
    if kept is None:
        kept = np.arange(len(source.offsets) - 1)
    sizes = {"count": count, "tokens_per_batch": tokens_per_batch}
    return make_plans([(source, target)], kept=kept, dropped=dropped or {}, **sizes)[0]


def make_plans(
    copies: list[tuple[Encoded, Encoded]],
    *,
    count: int,
    tokens_per_batch: int,
    kept: np.ndarray,
    dropped: dict[str, int],
) -> list[Plan]:
    """A plan for each segmentation of the same pairs, which share their shapes."""
    lengths = [
        np.stack([side.lengths[kept] for side in sides], axis=1) for sides in copies
    ]
    plans = []
    for own, found in zip(
        lengths, make_buckets(lengths, count, tokens_per_batch), strict=True
    ):
        places = sum(b.num_batches * b.rows * b.places for b in found)
        buckets = [dataclasses.replace(b, members=kept[b.members]) for b in found]
        plans.append(Plan(buckets, dropped, 1 - int(own.sum()) / places))
    return plans


def open_plan(folder: Path, make: Callable[[], Plan]) -> Plan:
    """A plan that is kept in a folder, made at the first call."""
    if not folder.exists():
        plan = make()
        shapes = [[b.rows, b.source, b.target, len(b.members)] for b in plan.buckets]
        with written_whole(folder) as draft:
            members = np.concatenate([bucket.members for bucket in plan.buckets])
            np.save(draft / "members.npy", members)
            document = {
                "shapes": shapes,
                "dropped": plan.dropped,
                "padding": plan.padding,
            }
            (draft / "plan.json").write_text(json.dumps(document), encoding="utf8")
    document = json.loads((folder / "plan.json").read_text(encoding="utf8"))
    members = np.load(folder / "members.npy", mmap_mode="r")
    ends = np.cumsum([shape[3] for shape in document["shapes"]])
    buckets = [
        Bucket(rows, source, target, members[end - size : end])
        for (rows, source, target, size), end in zip(
            document["shapes"], ends, strict=True
        )
    ]
    return Plan(buckets, document["dropped"], document["padding"])
