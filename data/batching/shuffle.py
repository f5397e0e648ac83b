"""A pseudo-random permutation that is computed entry by entry, never stored."""

import numpy as np

ROUNDS = 6
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def mix64(x: np.ndarray) -> np.ndarray:
    """Finalizer of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


class Permutation:
    """Pseudo-random permutation of 0 .. size - 1; `permutation[indices]` reads it.

    A Feistel network permutes the integers below the next power of 4; a result outside
    the range is permuted again until it is inside (cycle walking, Black and Rogaway
    2002). The cost of an entry does not depend on `size`. The integers of `key` select
    the permutation.
    """

    def __init__(self, size: int, *key: int):
        self.size = size
        self.half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        self.keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        result = self._feistel(np.asarray(indices, np.uint64))
        while (outside := result >= self.size).any():
            result[outside] = self._feistel(result[outside])
        return result.astype(np.int64)

    def _feistel(self, x: np.ndarray) -> np.ndarray:
        half, mask = np.uint64(self.half), np.uint64(2**self.half - 1)
        left, right = x >> half, x & mask
        for key in self.keys:
            left, right = right, left ^ (mix64(right + key) & mask)
        return (left << half) | right
