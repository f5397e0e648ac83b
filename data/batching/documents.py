"""Batches of sentence pairs in document order, for models that carry state.

Row b of batch k + 1 holds the sentence after that of row b of batch k, or the first one
of another document, where `reset` is set. An epoch assigns whole documents to rows and
holds every pair once; a row that ends before the others is padding of weight 0. Batch k
is a function of the corpus, the seed and k alone.
"""

import functools
import heapq
import itertools
from collections.abc import Sequence

import numpy as np

from data.batching.base import TrainBatches
from data.batching.bucketed import pair_batch
from data.batching.buckets import cheapest_shapes, refine_shapes, split_shapes
from data.token_cache import TokenizedSplit


class DocumentBatches(TrainBatches):
    """`batches[k]` for any k >= 0; without a seed for k < `len(batches)`.

    Attributes:
      batch_size: number of documents read in parallel (B).
      documents: indices of each document's pairs, in order.
      padding_fraction: fraction of padding in the first epoch's batches.
      epoch_length: number of batches, the same in every epoch.
    """

    def __init__(
        self,
        source: TokenizedSplit,
        target: TokenizedSplit,
        documents: Sequence[str],
        *,
        batch_size: int,
        buckets: int,
        indices: np.ndarray | None = None,
        seed: int | None = None,
    ):
        """Assigns documents to rows and chooses shapes.

        Args:
          documents: name of each pair's document; see `find_documents`.
          buckets: maximum number of shapes.
          indices: the pairs to use, ascending; None: all. The documents of others
            continue without them.
          seed: seed of the order; None: one epoch of documents in stored order.
        """
        self.source, self.target, self.seed = source, target, seed
        self.batch_size = batch_size
        self.lengths = np.stack([source.lengths, target.lengths], axis=1)
        indices = np.arange(len(self.lengths)) if indices is None else indices
        self.documents = find_documents(documents, indices)
        self.is_first = np.zeros(len(self.lengths), bool)
        self.is_first[[pairs[0] for pairs in self.documents]] = True
        self.epoch_length = self._epoch_table(0).shape[1]
        longest = self._longest(self._epoch_table(0))
        # Batches of later epochs differ: one shape holds the longest pair.
        largest = self.lengths[indices].max(axis=0)
        self._sizes = choose_shapes(longest, largest, buckets)
        self.shapes = [(batch_size, int(s), int(t)) for s, t in self._sizes]
        padded = batch_size * cheapest_shapes(longest, self._sizes)[1].sum()
        self.padding_fraction = float(1 - self.lengths[indices].sum() / padded)

    def __len__(self) -> int:
        return self.epoch_length

    def partial_batch(self, k, rows):
        if k < 0 or (self.seed is None and k >= self.epoch_length):
            raise IndexError(k)
        epoch, step = divmod(k, self.epoch_length)
        indices = self._epoch_table(epoch)[:, step]
        chosen, _ = cheapest_shapes(self._longest(indices[:, None]), self._sizes)
        indices = indices[rows]
        reset = (indices < 0) | self.is_first[indices]
        widths = self._sizes[chosen[0]]
        return pair_batch(self.source, self.target, indices, widths, reset)

    @functools.lru_cache(maxsize=2)  # noqa: B019 (batches live as long as the process)
    def _epoch_table(self, epoch: int) -> np.ndarray:
        """Returns the pair of each row in each batch of an epoch, [B, K]; -1: none."""
        random = None
        if self.seed is not None:
            random = np.random.default_rng([self.seed, epoch])
        lengths = np.asarray([len(pairs) for pairs in self.documents])
        assigned = assign_to_rows(lengths, self.batch_size, random)
        num_batches = max(lengths[row].sum() for row in assigned)
        table = np.full((self.batch_size, num_batches), -1)
        for pairs, row in zip(table, assigned, strict=True):
            documents = [self.documents[document] for document in row]
            joined = np.concatenate([*documents, np.zeros(0, int)])
            pairs[: len(joined)] = joined
        return table

    def _longest(self, indices: np.ndarray) -> np.ndarray:
        """Returns the longest source and target of each batch of a table, [K, 2]."""
        lengths = np.where(indices[..., None] < 0, 0, self.lengths[indices])
        return lengths.max(axis=0)


def find_documents(names: Sequence[str], indices: np.ndarray) -> list[np.ndarray]:
    """Groups pairs into documents, in order.

    Args:
      names: document of each pair. Consecutive pairs of one name are a document; a pair
        without a name is a document alone.
      indices: the pairs to use.
    """
    begins = [
        not name or name != previous
        for previous, name in itertools.pairwise(itertools.chain([None], names))
    ]
    document = np.cumsum(begins)[indices]
    return np.split(indices, np.flatnonzero(np.diff(document)) + 1)


def assign_to_rows(
    lengths: np.ndarray, num_rows: int, random: np.random.Generator | None
) -> list[np.ndarray]:
    """Assigns documents to rows greedily, the longest first, each to the shortest row.

    Args:
      lengths: number of pairs of each document.
      random: permutes documents of one length and the order of each row, which leaves
        the lengths of rows unchanged; None: in stored order.
    """
    order = np.arange(len(lengths))
    if random is not None:
        order = random.permutation(order)
    order = order[np.argsort(-lengths[order], kind="stable")]
    rows = [[] for _ in range(num_rows)]
    shortest = [(0, row) for row in range(num_rows)]
    for document in order.tolist():
        length, row = shortest[0]
        rows[row].append(document)
        heapq.heapreplace(shortest, (length + int(lengths[document]), row))
    sort = np.sort if random is None else random.permutation
    return [sort(np.asarray(documents, int)) for documents in rows]


def choose_shapes(
    longest: np.ndarray, largest: np.ndarray, num_shapes: int
) -> np.ndarray:
    """Returns at most `num_shapes` shapes with little padding, [C, 2].

    Args:
      longest: longest source and target of each batch, [K, 2].
      largest: source and target lengths that one of the shapes must hold.
    """
    wanted = np.concatenate([longest, largest[None]])
    pairs, counts = np.unique(wanted, axis=0, return_counts=True)
    shapes = refine_shapes(pairs, counts, split_shapes(pairs, counts, num_shapes))
    chosen, _ = cheapest_shapes(pairs, shapes)
    return np.unique(shapes[chosen], axis=0)
