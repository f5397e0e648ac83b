"""Which sentence pairs are left out of training, and why."""

import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from data.token_cache.reader import Encoded

ODD = np.uint64(0x9E3779B97F4A7C15)  # makes (a, b) and (b, a) two different pairs


def kept_pairs(
    source: Encoded,
    target: Encoded,
    cfg: ConfigDict,
    copies: Sequence[tuple[Encoded, Encoded]] = (),
) -> tuple[np.ndarray, dict[str, int]]:
    """The numbers of the pairs that train, and how many do not, by reason.

    A pair with several faults counts under the first of them.

    Args:
      cfg: the experiment's `cfg.data`.
      copies: other segmentations; a side is as long as in the longest of them.
    """
    sides = zip(*(copies or ((source, target),)), strict=True)
    lengths = [
        functools.reduce(np.maximum, (s.lengths for s in side)) for side in sides
    ]
    longer, shorter = np.maximum(*lengths), np.minimum(*lengths)
    faults = {f"longer than data.max_length={cfg.max_length}": longer > cfg.max_length}
    # The end of the sentence is a token, but not one that is asked for here.
    few = shorter - 1 < cfg.min_length
    faults[f"shorter than data.min_length={cfg.min_length}"] = few
    if cfg.max_ratio:
        far = longer > cfg.max_ratio * shorter
        faults[f"lengths differ more than data.max_ratio={cfg.max_ratio}"] = far
    if cfg.drop_identical:
        faults["source and target identical"] = source.hashes == target.hashes
    kept = np.ones(len(longer), bool)
    dropped = {}
    for reason, fault in faults.items():
        dropped[reason] = int((kept & fault).sum())
        kept &= ~fault
    numbers = np.flatnonzero(kept)
    if cfg.drop_duplicates:
        pairs = source.hashes[numbers] * ODD ^ target.hashes[numbers]
        _, first = np.unique(pairs, return_index=True)
        dropped["seen before"] = len(numbers) - len(first)
        numbers = numbers[np.sort(first)]
    return numbers, {reason: count for reason, count in dropped.items() if count}
