"""Trivial baselines of translation and other pairs of texts, which need no learning.

"copy" outputs the source. "nearest_neighbour" outputs the target of the training pair
whose source has the highest tf-idf similarity, "most_frequent_target" the target that
most training pairs have. "lead_10" outputs the first ten words of the source; words
without spaces between them are characters.
"""

import collections
from collections.abc import Callable

import numpy as np
import scipy.sparse

from tasks.bleu import exact_match, score_text

LEAD = 10  # words
MAX_TRAINING_PAIRS = 200_000  # callers pass no training pairs of larger corpora

Pair = tuple[str, str]
Normalizer = Callable[[str], str]


def trivial_baselines(
    train: list[Pair],
    split: list[Pair],
    language: str,
    normalize_source: Normalizer = str,
    normalize_target: Normalizer = str,
) -> dict[str, dict]:
    """Returns BLEU and exact match of each baseline on a split.

    Args:
      train: training pairs to search for neighbours; if empty, only "copy" is scored.
      language: code of the target language.
      normalize_target: normalizes a reference as in the evaluation of models.
    """
    outputs = baseline_outputs(
        train, [source for source, _ in split], normalize_source, normalize_target
    )
    references = [normalize_target(target) for _, target in split]
    return {
        name: {
            "bleu": score_text(texts, references, language)[0]["bleu"]["value"],
            "exact_match": exact_match(texts, references),
        }
        for name, texts in outputs.items()
        if name in ("copy", "nearest_neighbour")
    }


def baseline_outputs(
    train: list[Pair],
    sources: list[str],
    normalize_source: Normalizer = str,
    normalize_target: Normalizer = str,
) -> dict[str, list[str]]:
    """Returns the outputs of each baseline; see `trivial_baselines`."""
    outputs = {"copy": [normalize_source(source) for source in sources]}
    outputs[f"lead_{LEAD}"] = [first_words(text, LEAD) for text in outputs["copy"]]
    if not train:
        return outputs
    counts = collections.Counter(target for _, target in train)
    [(most_frequent, _)] = counts.most_common(1)
    outputs["most_frequent_target"] = [normalize_target(most_frequent)] * len(sources)
    nearest = nearest_neighbours([source for source, _ in train], sources)
    outputs["nearest_neighbour"] = [normalize_target(train[i][1]) for i in nearest]
    return outputs


def first_words(text: str, count: int) -> str:
    """Returns the first words of a text; characters, where it has no spaces."""
    words = text.split()
    if len(words) > 1 or text.isascii():
        return " ".join(words[:count])
    return text.strip()[:count]


def features(text: str) -> list[str]:
    """Returns the words and character trigrams of a text."""
    padded = f" {text} "
    return text.split() + [padded[i : i + 3] for i in range(len(padded) - 2)]


def nearest_neighbours(known: list[str], queries: list[str]) -> np.ndarray:
    """Returns the index of the known text most similar to each query.

    The similarity is the cosine of tf-idf vectors of `features`.
    """
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
        similarity = query_rows[start : start + 256] @ known_rows.T
        best.append(np.asarray(similarity.argmax(axis=1)).ravel())
    return np.concatenate(best)


def _counts(texts: list[str], columns: dict[str, int]) -> scipy.sparse.csr_matrix:
    values, indices, ends = [], [], [0]
    for text in texts:
        count = collections.Counter(f for f in features(text) if f in columns)
        indices.extend(columns[feature] for feature in count)
        values.extend(count.values())
        ends.append(len(indices))
    shape = (len(texts), max(len(columns), 1))
    return scipy.sparse.csr_matrix((np.asarray(values, float), indices, ends), shape)


def _unit_rows(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    scale = 1 / np.maximum(np.asarray(norms).ravel(), 1e-12)
    return scipy.sparse.diags(scale) @ matrix
