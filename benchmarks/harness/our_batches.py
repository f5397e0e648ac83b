"""Our data package as a measured process: training batches.

python -m benchmarks.harness.our_batches --kind=sentences
"""

import argparse
from importlib import metadata

from benchmarks.harness.protocol import serve
from benchmarks.harness.random_corpora import Text, VariedSentences
from benchmarks.harness.workloads import CORPORA


class Batches:
    """Measured process whose step makes some batches."""

    products = ()

    def __init__(self, kind: str, tiny: bool):
        size = CORPORA[kind].shrunk() if tiny else CORPORA[kind]
        if kind == "sentences":
            corpus = VariedSentences(size.rows, size.length, size.vocabulary, buckets=8)
            self.batches = corpus.train_batches(size.tokens_per_batch)
        else:
            corpus = Text(size.rows, size.length, size.vocabulary)
            self.batches = corpus.train_batches()
        self.count, self.number, self.tokens = size.batches, 0, 0

    def step(self) -> None:
        """Makes the next batches."""
        self.tokens = 0
        for k in range(self.number, self.number + self.count):
            self.tokens += self.batches[k]["weights"].sum()
        self.number += self.count

    def facts(self) -> dict:
        """Returns the facts; `tokens` counts target tokens of the last step."""
        versions = {"numpy": metadata.version("numpy")}
        return {"device": "cpu", "versions": versions, "tokens": int(self.tokens)}


def main() -> None:
    """Serves the measured process until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=CORPORA, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    serve(lambda: Batches(options.kind, options.tiny))


if __name__ == "__main__":
    main()
