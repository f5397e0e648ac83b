"""Batches by PyTorch's `DataLoader`: sentences sorted by length, padded per batch.

Text is a tensor of parallel streams from which slices are taken.
"""

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness.protocol import serve_batches
from benchmarks.harness.workloads import Corpus


class Pairs(Dataset):
    """Random sentence pairs of equal lengths."""

    def __init__(self, corpus: Corpus):
        random = np.random.default_rng(0)
        self.lengths = random.integers(2, corpus.length + 1, corpus.rows)
        self.sources, self.targets = (
            [
                torch.from_numpy(random.integers(4, corpus.vocabulary, n))
                for n in lengths
            ]
            for lengths in (self.lengths, self.lengths)
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, k):
        return self.sources[k], self.targets[k]


def batches_of(pairs: Pairs, most: int) -> list[list[int]]:
    """Groups sentences of similar length into batches, in random order."""
    batches, batch = [], []
    for k in np.argsort(pairs.lengths, kind="stable"):
        if (len(batch) + 1) * pairs.lengths[k] > most:
            batches.append(batch)
            batch = []
        batch.append(int(k))
    batches.append(batch)
    np.random.default_rng(0).shuffle(batches)
    return batches


def collate(pairs) -> dict:
    """Collates pairs: padding, masks and decoder inputs."""
    source, labels = (pad_sequence(side, batch_first=True) for side in zip(*pairs))  # noqa: B905
    start = torch.full_like(labels[:, :1], 3)
    return {
        "source": source,
        "source_mask": source != 0,
        "target_in": torch.cat([start, labels[:, :-1]], dim=1),
        "labels": labels,
        "weights": (labels != 0).float(),
    }


def sentences(corpus: Corpus):
    """Yields batches of sentence pairs without end."""
    pairs = Pairs(corpus)
    sampler = batches_of(pairs, corpus.tokens_per_batch)
    while True:
        yield from DataLoader(pairs, batch_sampler=sampler, collate_fn=collate)


def text(corpus: Corpus):
    """Yields segments of parallel streams without end."""
    shape = (corpus.rows, 8 * corpus.length + 1)
    streams = torch.randint(4, corpus.vocabulary, shape)
    while True:
        for first in range(0, 8 * corpus.length, corpus.length):
            last = first + corpus.length
            labels = streams[:, first + 1 : last + 1].contiguous()
            weights = torch.ones_like(labels, dtype=torch.float32)
            tokens = streams[:, first:last].contiguous()
            yield {"tokens": tokens, "labels": labels, "weights": weights}


if __name__ == "__main__":
    serve_batches("torch", {"sentences": sentences, "text": text})
