"""Trivial baselines of translation and other pairs of texts, which need no learning.

"copy" outputs the source. "nearest_neighbour" outputs the target of the training pair
whose source has the highest tf-idf similarity, "most_frequent_target" the target that
most training pairs have. "lead_10" outputs the first ten words of the source, or
characters where most letters are of scripts without spaces.
"""

import collections
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tasks.text_metrics.scorer import Scorer
from tasks.text_metrics.words import UNSPACED

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEAD = 10  # words
LEAD_NAME = f"lead_{LEAD}"
BASELINES = ("copy", LEAD_NAME, "most_frequent_target", "nearest_neighbour")
MAX_TRAINING_PAIRS = 200_000  # of larger corpora only copies are scored

Pair = tuple[str, str]
Normalizer = Callable[[str], str]


def score_baselines(
    names: tuple[str, ...],
    scorer: Scorer,
    normalize_source: Normalizer,
    dataset,
    sources: list[str],
    references: list[list[str]],
    columns: dict[str, list[str]],
) -> dict[str, dict[str, float]]:
    """Returns all scores of each baseline; of a large corpus, only of copies.

    Args:
      names: some of BASELINES.
      normalize_source: normalizes a source that is copied like the references.
      columns: the columns that metrics read, by name.
    """
    is_small = dataset.corpus.splits["train"] <= MAX_TRAINING_PAIRS
    train = dataset.texts("train") if is_small else []
    normalizers = normalize_source, scorer.normalize_reference
    outputs = baseline_outputs(names, train, sources, *normalizers)
    texts, scores = scorer.texts(outputs["copy"], references, columns), {}
    for name, hypotheses in outputs.items():
        scored = scorer.score(texts.with_hypotheses(hypotheses)).scores
        scores[name] = {metric: entry["value"] for metric, entry in scored.items()}
    return scores


def baseline_outputs(
    names: tuple[str, ...],
    train: list[Pair],
    sources: list[str],
    normalize_source: Normalizer = str,
    normalize_target: Normalizer = str,
) -> dict[str, list[str]]:
    """Returns the outputs of baselines.

    Args:
      names: some of BASELINES.
      train: training pairs; if empty, those that need them are left out.
      normalize_source: normalizes a source that is copied like the references.
      normalize_target: normalizes a target as in the evaluation of models.
    """
    copies = [normalize_source(source) for source in sources]
    outputs = {"copy": copies, LEAD_NAME: [first_words(text, LEAD) for text in copies]}
    if train and "most_frequent_target" in names:
        counts = collections.Counter(target for _, target in train)
        [(most_frequent, _)] = counts.most_common(1)
        most_frequent = normalize_target(most_frequent)
        outputs["most_frequent_target"] = [most_frequent] * len(sources)
    if train and "nearest_neighbour" in names:
        nearest = nearest_neighbours([source for source, _ in train], sources)
        outputs["nearest_neighbour"] = [normalize_target(train[i][1]) for i in nearest]
    return {name: texts for name, texts in outputs.items() if name in names}


def first_words(text: str, count: int) -> str:
    """Returns the first words of a text; characters of scripts without spaces."""
    num_unspaced = len(re.findall(f"[{UNSPACED}]", text))
    if 2 * num_unspaced > sum(map(str.isalpha, text)):
        return text.strip()[:count]
    return " ".join(text.split()[:count])


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


def _counts(texts: list[str], columns: dict[str, int]) -> "csr_matrix":
    from scipy.sparse import csr_matrix  # takes a tenth of a second

    values, indices, ends = [], [], [0]
    for text in texts:
        count = collections.Counter(f for f in features(text) if f in columns)
        indices.extend(columns[feature] for feature in count)
        values.extend(count.values())
        ends.append(len(indices))
    shape = (len(texts), max(len(columns), 1))
    return csr_matrix((np.asarray(values, float), indices, ends), shape)


def _unit_rows(matrix: "csr_matrix") -> "csr_matrix":
    from scipy.sparse import diags

    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    scale = 1 / np.maximum(np.asarray(norms).ravel(), 1e-12)
    return diags(scale) @ matrix
