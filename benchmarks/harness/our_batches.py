"""Our data package as a measured process: training batches.

python -m benchmarks.harness.our_batches --kind=sentences
"""

import itertools
from collections.abc import Iterator

from benchmarks.harness.protocol import serve_batches
from benchmarks.harness.random_corpora import Text, VariedSentences
from benchmarks.harness.workloads import Corpus


def sentences(size: Corpus) -> Iterator[dict]:
    """Yields batches of sentence pairs in buckets, without end."""
    corpus = VariedSentences(size.rows, size.length, size.vocabulary, buckets=8)
    return map(
        corpus.train_batches(size.tokens_per_batch).__getitem__, itertools.count()
    )


def text(size: Corpus) -> Iterator[dict]:
    """Yields segments of parallel streams, without end."""
    corpus = Text(size.rows, size.length, size.vocabulary)
    return map(corpus.train_batches().__getitem__, itertools.count())


if __name__ == "__main__":
    serve_batches("numpy", {"sentences": sentences, "text": text})
