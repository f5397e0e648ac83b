"""Batches of sentence pairs in the order of their documents.

Row b of batch k+1 holds the sentence after that of row b of batch k, or the first
of another document, which `reset` says. An epoch deals whole documents to the rows
and holds every pair once; a row that is done before the others is padding of
weight 0. Batch k is a function of the corpus, the seed and k alone.
"""

import functools
import heapq
import itertools
from collections.abc import Sequence

import numpy as np

from data.batching.bucket_shapes import cheapest, cut_shapes, moved_shapes
from data.batching.bucketed import pair_batch
from data.token_cache.reader import Encoded
from utils.errors import UserError


class DocumentBatches:
    """`batches[k]` for any k >= 0; without a seed for k < `len(batches)`.

    Attributes:
      rows: B, documents read side by side.
      documents: the numbers of each document's pairs, in order.
      num_dropped: pairs left out; their documents go on without them.
      shapes: (rows, S, T), as many compilations as these.
      padding: share of the first epoch's places that hold no token.
      epoch_length: batches, in every epoch the same.
    """

    def __init__(
        self,
        source: Encoded,
        target: Encoded,
        documents: Sequence[str],
        *,
        rows: int,
        buckets: int,
        max_length: int | None = None,
        kept: np.ndarray | None = None,
        seed: int | None = None,
    ):
        """With `seed` None each pair comes once, documents in stored order.

        Args:
          documents: the name of each pair's document; see `find_documents`.
          buckets: at most so many shapes.
          max_length: of either side; longer pairs are left out.
          kept: numbers of the pairs that may be used, ascending; None: all.

        Raises UserError where no pair is left.
        """
        self.source, self.target, self.rows, self.seed = source, target, rows, seed
        self.lengths = np.stack([source.lengths, target.lengths], axis=1)
        fits = self.lengths.max(axis=1) <= (max_length or self.lengths.max())
        kept = np.arange(len(fits)) if kept is None else np.asarray(kept)
        kept = kept[fits[kept]]
        if not len(kept):
            raise UserError(f"no pair of at most {max_length} tokens a side is left")
        self.num_dropped = len(fits) - len(kept)
        self.documents = find_documents(documents, kept)
        self.is_first = np.zeros(len(fits), bool)
        self.is_first[[numbers[0] for numbers in self.documents]] = True
        self.epoch_length = self._table(0).shape[1]
        longest = self._longest(self._table(0))
        # Later epochs meet other batches: one shape holds whatever may come.
        self._sizes = choose_shapes(longest, self.lengths[kept].max(axis=0), buckets)
        self.shapes = [(rows, int(s), int(t)) for s, t in self._sizes]
        places = rows * cheapest(longest, self._sizes)[1].sum()
        self.padding = float(1 - self.lengths[kept].sum() / places)

    def __len__(self) -> int:
        return self.epoch_length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.part(k, slice(None))

    def num_rows(self, k: int) -> int:
        """Of batch k; all have the same."""
        del k
        return self.rows

    def part(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch k, such as those of one host; no others are read."""
        if k < 0 or (self.seed is None and k >= self.epoch_length):
            raise IndexError(k)
        epoch, step = divmod(k, self.epoch_length)
        numbers = self._table(epoch)[:, step]
        chosen, _ = cheapest(self._longest(numbers[:, None]), self._sizes)
        numbers = numbers[rows]
        reset = (numbers < 0) | self.is_first[numbers]
        widths = self._sizes[chosen[0]]
        return pair_batch(self.source, self.target, numbers, widths, reset)

    @functools.lru_cache(maxsize=2)  # noqa: B019 (batches live as long as the process)
    def _table(self, epoch: int) -> np.ndarray:
        """Which pair each row holds in each batch of an epoch, [B, K]; -1: none."""
        random = None
        if self.seed is not None:
            random = np.random.default_rng([self.seed, epoch])
        lengths = np.asarray([len(numbers) for numbers in self.documents])
        dealt = deal(lengths, self.rows, random)
        table = np.full((self.rows, max(lengths[row].sum() for row in dealt)), -1)
        for numbers, row in zip(table, dealt, strict=True):
            held = [self.documents[document] for document in row]
            numbers[: lengths[row].sum()] = np.concatenate([*held, np.zeros(0, int)])
        return table

    def _longest(self, numbers: np.ndarray) -> np.ndarray:
        """The longest source and target of each batch of a table, [K, 2]."""
        lengths = np.where(numbers[..., None] < 0, 0, self.lengths[numbers])
        return lengths.max(axis=0)


def find_documents(names: Sequence[str], kept: np.ndarray) -> list[np.ndarray]:
    """The numbers of each document's pairs, of those in `kept`, in order.

    A document is a run of pairs of one name; a pair without a name is one alone.
    """
    begins = [
        not name or name != before
        for before, name in itertools.pairwise(itertools.chain([None], names))
    ]
    document = np.cumsum(begins)[kept]
    return np.split(kept, np.flatnonzero(np.diff(document)) + 1)


def deal(
    lengths: np.ndarray, rows: int, random: np.random.Generator | None
) -> list[np.ndarray]:
    """The documents of each row: the longest first, each to the shortest row.

    How long rows get does not depend on `random`, which chooses among documents
    of one length and in which order a row reads; None: in stored order.
    """
    order = np.arange(len(lengths))
    if random is not None:
        order = random.permutation(order)
    order = order[np.argsort(-lengths[order], kind="stable")]
    held = [[] for _ in range(rows)]
    shortest = [(0, row) for row in range(rows)]
    for document in order.tolist():
        length, row = shortest[0]
        held[row].append(document)
        heapq.heapreplace(shortest, (length + int(lengths[document]), row))
    sort = np.sort if random is None else random.permutation
    return [sort(np.asarray(documents, int)) for documents in held]


def choose_shapes(longest: np.ndarray, largest: np.ndarray, count: int) -> np.ndarray:
    """At most `count` shapes, [C, 2], in which little of the batches is padding.

    Args:
      longest: source and target of each batch, [K, 2].
      largest: source and target that one of the shapes must hold.
    """
    wanted = np.concatenate([longest, largest[None]])
    kinds, numbers = np.unique(wanted, axis=0, return_counts=True)
    shapes = moved_shapes(kinds, numbers, cut_shapes(kinds, numbers, count))
    chosen, _ = cheapest(kinds, shapes)
    return np.unique(shapes[chosen], axis=0)
