"""What translations score that need no learning: baselines under every BLEU.

Copying: the source as it is. Nearest neighbour: the target of the training pair
whose source is most like the source at hand.
"""

import collections
from collections.abc import Callable

import numpy as np
import scipy.sparse

from tasks.bleu import exact_match, score_text

MAX_TRAINING_PAIRS = 200_000  # with more to look through, callers hand in none

Pair = tuple[str, str]
Writes = Callable[[str], str]


def trivial_baselines(
    train: list[Pair],
    split: list[Pair],
    language: str,
    written: tuple[Writes, Writes] = (str, str),
) -> dict[str, dict]:
    """BLEU and exact match of each floor on a split, by its name.

    Args:
      train: the pairs to look for neighbours in; none, and only copying is scored.
      written: a source and a target as models that are compared with it write them.
    """
    as_source, as_target = written
    sources = [source for source, _ in split]
    found = {"copy": [as_source(source) for source in sources]}
    if train:
        nearest = nearest_neighbours([source for source, _ in train], sources)
        found["nearest_neighbour"] = [as_target(train[i][1]) for i in nearest]
    references = [as_target(target) for _, target in split]
    return {
        name: {
            "bleu": score_text(texts, references, language)[0]["bleu"]["value"],
            "exact_match": exact_match(texts, references),
        }
        for name, texts in found.items()
    }


def features(text: str) -> list[str]:
    """Words, and runs of three characters."""
    padded = f" {text} "
    return text.split() + [padded[i : i + 3] for i in range(len(padded) - 2)]


def nearest_neighbours(known: list[str], queries: list[str]) -> np.ndarray:
    """For each query the known text of the highest cosine, by tf-idf of features."""
    columns: dict[str, int] = {}
    for text in known:
        for feature in features(text):
            columns.setdefault(feature, len(columns))
    known_counts = _counts(known, columns)
    documents = np.asarray((known_counts > 0).sum(axis=0)).ravel()
    weights = np.log(len(known) / np.maximum(documents, 1)) + 1
    known_rows = _unit_rows(known_counts.multiply(weights).tocsr())
    query_rows = _unit_rows(_counts(queries, columns).multiply(weights).tocsr())
    best = []
    for start in range(0, len(queries), 256):
        likeness = query_rows[start : start + 256] @ known_rows.T
        best.append(np.asarray(likeness.argmax(axis=1)).ravel())
    return np.concatenate(best)


def _counts(texts: list[str], columns: dict[str, int]) -> scipy.sparse.csr_matrix:
    values, places, ends = [], [], [0]
    for text in texts:
        count = collections.Counter(f for f in features(text) if f in columns)
        places.extend(columns[feature] for feature in count)
        values.extend(count.values())
        ends.append(len(places))
    shape = (len(texts), max(len(columns), 1))
    return scipy.sparse.csr_matrix((np.asarray(values, float), places, ends), shape)


def _unit_rows(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    scale = 1 / np.maximum(np.asarray(norms).ravel(), 1e-12)
    return scipy.sparse.diags(scale) @ matrix
