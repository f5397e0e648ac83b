"""Arrays of token ids, padded to sizes for which programs are compiled once."""

import numpy as np


def power_of_2(size: int, least: int = 1) -> int:
    """Rounds a size up to a power of 2."""
    return max(least, 1 << (max(size, 1) - 1).bit_length())


def pad(rows: list[list[int]], least: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ids as an array with 0 for padding, and the mask of the tokens."""
    shape = power_of_2(len(rows)), power_of_2(max(map(len, rows)), least)
    tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return tokens, mask
