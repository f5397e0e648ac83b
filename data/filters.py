"""Filters of sentence pairs for training."""

import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from data.token_cache import TokenizedSplit

ODD = np.uint64(0x9E3779B97F4A7C15)  # so that (a, b) and (b, a) hash differently


def filter_pairs(
    source: TokenizedSplit,
    target: TokenizedSplit,
    cfg: ConfigDict,
    segmentations: Sequence[tuple[TokenizedSplit, TokenizedSplit]] = (),
) -> tuple[np.ndarray, dict[str, int]]:
    """Selects the pairs to train on, by the experiment's `cfg.data`.

    Args:
      segmentations: alternatives to (source, target); the longest one counts.

    Returns:
      The indices of the selected pairs, ascending, and the number of the others by
      reason. A pair that fails several filters counts for the first.
    """
    sides = zip(*(segmentations or ((source, target),)), strict=True)
    lengths = [
        functools.reduce(np.maximum, (s.lengths for s in side)) for side in sides
    ]
    longer, shorter = np.maximum(*lengths), np.minimum(*lengths)
    failures = {
        f"longer than data.max_length={cfg.max_length}": longer > cfg.max_length,
        # EOS does not count for `min_length`.
        f"shorter than data.min_length={cfg.min_length}": shorter - 1 < cfg.min_length,
    }
    if cfg.max_ratio:
        reason = f"lengths differ more than data.max_ratio={cfg.max_ratio}"
        failures[reason] = longer > cfg.max_ratio * shorter
    if cfg.drop_identical:
        failures["source and target identical"] = source.hashes == target.hashes
    selected = np.ones(len(longer), bool)
    dropped = {}
    for reason, failed in failures.items():
        dropped[reason] = int((selected & failed).sum())
        selected &= ~failed
    indices = np.flatnonzero(selected)
    if cfg.drop_duplicates:
        hashes = source.hashes[indices] * ODD ^ target.hashes[indices]
        _, first = np.unique(hashes, return_index=True)
        dropped["duplicates"] = len(indices) - len(first)
        indices = indices[np.sort(first)]
    return indices, {reason: count for reason, count in dropped.items() if count}
