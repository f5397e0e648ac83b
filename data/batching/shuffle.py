"""A shuffle that is arithmetic: any place of it, without making it whole."""

import numpy as np

ROUNDS = 6
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * MIX[0]
    x = (x ^ (x >> np.uint64(27))) * MIX[1]
    return x ^ (x >> np.uint64(31))


class Permutation:
    """A pseudo-random order of 0 .. size - 1.

    A Feistel network over the next power of 4, walked on until it lands below
    `size` (Black and Rogaway 2002): `permutation[places]` costs the same for any
    size.

    Args:
      key: whole numbers that choose the order.
    """

    def __init__(self, size: int, *key: int):
        self.size = size
        self.half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        self.keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        found = self._once(np.asarray(places, np.uint64))
        while (outside := found >= self.size).any():
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def _once(self, x: np.ndarray) -> np.ndarray:
        half, mask = np.uint64(self.half), np.uint64(2**self.half - 1)
        left, right = x >> half, x & mask
        for key in self.keys:
            left, right = right, left ^ (mixed(right + key) & mask)
        return (left << half) | right
