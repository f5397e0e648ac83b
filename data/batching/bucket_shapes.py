"""Which shapes to pad sentence pairs to, so that little is padding.

Every pair goes into the cheapest shape that holds it. A first list comes from
cutting all pairs in two, again and again, where that saves most; then each side of
each shape moves as long as that saves more.
"""

import itertools

import numpy as np

MOST_COUNTED = 2**24  # numbers counted in an array, instead of sorted
FAR = (1, 2, 3, 4)  # tokens that a side of a shape may move at once
NEVER = np.iinfo(np.int64).max // 2**32  # the cost of a pair that no shape holds


def best_cut(
    lengths: np.ndarray, others: np.ndarray, numbers: np.ndarray
) -> tuple[float, int]:
    """Where to cut `lengths` in two so that padding to the longest costs least.

    Args:
      lengths, others: of both sides, `numbers` pairs of each.

    Returns the padded tokens saved and the longest length before the cut.
    """
    order = np.argsort(lengths, kind="stable")
    lengths, others, numbers = lengths[order], others[order], numbers[order]
    count = np.cumsum(numbers)
    low = lengths + np.maximum.accumulate(others)
    high = lengths[-1] + np.maximum.accumulate(others[::-1])[::-1]
    cost = count[:-1] * low[:-1] + (count[-1] - count[:-1]) * high[1:]
    saved = count[-1] * high[0] - cost
    saved[lengths[:-1] == lengths[1:]] = -1
    if not len(saved):
        return -1, 0
    place = int(saved.argmax())
    return float(saved[place]), int(lengths[place])


def cut_shapes(kinds: np.ndarray, numbers: np.ndarray, count: int) -> np.ndarray:
    """At most `count` shapes, [count, 2], by cutting the worst bucket in two.

    Args:
      kinds: pairs of lengths that occur, [K, 2], and how often, [K].
    """
    bucket = np.zeros(len(kinds), np.int64)
    for new in range(1, count):
        cuts = []
        for number, side in itertools.product(range(new), (0, 1)):
            inside = bucket == number
            here, other = kinds[inside, side], kinds[inside, 1 - side]
            cuts.append((*best_cut(here, other, numbers[inside]), number, side))
        saved, limit, number, side = max(cuts)
        if saved <= 0:
            break
        bucket[(bucket == number) & (kinds[:, side] > limit)] = new
    parts = [kinds[bucket == number] for number in range(bucket.max() + 1)]
    return np.stack([part.max(axis=0) for part in parts])


def cheapest(kinds: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shape of each kind of pair, and its places; NEVER where none holds it."""
    holds = (kinds[:, None] <= shapes[None]).all(axis=-1)
    cost = np.where(holds, shapes.sum(axis=1), NEVER)
    chosen = cost.argmin(axis=1)
    return chosen, cost[np.arange(len(kinds)), chosen]


def moved_shapes(
    kinds: np.ndarray, numbers: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
    """Shapes of which no side can move a little and save places."""
    moves = [sign * far for far in FAR for sign in (-1, 1)]
    least, before = (cheapest(kinds, shapes)[1] * numbers).sum(), None
    while before is None or least < before:
        before = least
        for number, side, move in itertools.product(range(len(shapes)), (0, 1), moves):
            other = shapes.copy()
            other[number, side] += move
            cost = (cheapest(kinds, other)[1] * numbers).sum()
            if cost < least:
                shapes, least = other, cost
    return shapes


def bucket_numbers(
    source_lengths: np.ndarray, target_lengths: np.ndarray, count: int
) -> np.ndarray:
    """The number of the bucket of each pair, at most `count` buckets."""
    base = int(target_lengths.max()) + 1
    kind = source_lengths.astype(np.int64) * base + target_lengths
    found, numbers, kind_of = counted(kind)
    kinds = np.stack([found // base, found % base], axis=1)
    shapes = moved_shapes(kinds, numbers, cut_shapes(kinds, numbers, count))
    chosen, _ = cheapest(kinds, shapes)
    used = np.unique(chosen, return_inverse=True)[1]
    return used.ravel()[kind_of]


def counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values that occur, how often, and which of them stands at each place.

    Without sorting where values are small, which saves a large corpus gigabytes.
    """
    if values.max() > MOST_COUNTED:
        found, which, numbers = np.unique(
            values, return_inverse=True, return_counts=True
        )
        return found, numbers, which
    count = np.bincount(values)
    found = np.flatnonzero(count)
    place = np.zeros(len(count), np.int32)
    place[found] = np.arange(len(found))
    return found, count[found], place[values]
