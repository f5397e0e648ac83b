"""Some examples of a corpus, from all over it."""

from collections.abc import Iterator

import numpy as np

from data.corpus import Corpus

PROBES = 16  # examples that tell how long the others are
RUNS = 1000  # of examples behind one another, in a sample


def mean_size(corpus: Corpus, split: str) -> float:
    """About how many characters an example has, all sides together; 1 or more."""
    count = corpus.splits[split]
    places = np.unique(np.linspace(0, count - 1, PROBES).astype(int)) if count else []
    found = [e for i in places for e in corpus.read(split, int(i), int(i) + 1)]
    return max(1.0, sum(len(text) for e in found for text in e) / max(len(found), 1))


def spread(corpus: Corpus, split: str, most: int) -> Iterator[tuple[str, ...]]:
    """Examples of about `most` characters, evenly spread; all if they have no more.

    Args:
      most: 0: all.
    """
    count = corpus.splits[split]
    wanted = int(most / mean_size(corpus, split)) if most else count
    if wanted >= count:
        yield from corpus.read(split)
        return
    runs = max(1, min(RUNS, wanted))
    for start in np.linspace(0, count, runs, endpoint=False).astype(int).tolist():
        yield from corpus.read(split, start, start + max(1, wanted // runs))
