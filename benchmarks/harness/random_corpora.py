"""Corpora that mean nothing, in the form that training reads corpora in."""

import dataclasses

import numpy as np

from data.batching.bucketed import SentenceBatches
from data.batching.buckets import make_plan
from data.batching.stream import TextBatches
from data.token_cache.reader import Encoded
from data.tokenizers.base import EOS, SPECIAL
from data.tokenizers.serialization import WordTokenizer

BATCHES = 4  # that differ from each other


def words(count: int) -> WordTokenizer:
    """A vocabulary of so many numbers."""
    return WordTokenizer([*SPECIAL, *map(str, range(count - len(SPECIAL)))])


def encoded(lengths: np.ndarray, vocabulary: int, seed: int) -> Encoded:
    """Sentences of these lengths, their ends included."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    random = np.random.default_rng(seed)
    tokens = random.integers(len(SPECIAL), vocabulary, offsets[-1]).astype(np.int32)
    tokens[offsets[1:] - 1] = EOS
    counts = dict.fromkeys(("characters", "words", "size"), len(tokens))
    return Encoded(tokens, offsets, **counts)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Pairs that are all as long: `train_batches` as a `Dataset` gives them."""

    rows: int
    length: int
    vocabulary: int

    def train_batches(self) -> SentenceBatches:
        """A few batches, each full."""
        lengths = np.full(self.rows * BATCHES, self.length)
        sides = [encoded(lengths, self.vocabulary, seed) for seed in (0, 1)]
        plan = make_plan(*sides, count=1, tokens_per_batch=self.rows * self.length)
        return SentenceBatches(*sides, plan, seed=0)


@dataclasses.dataclass(frozen=True)
class VariedSentences:
    """Pairs of all lengths up to `length`, each equally often.

    Attributes:
      factor: a translation has at most this x source + 10 tokens.
    """

    rows: int
    length: int
    vocabulary: int
    buckets: int = 4

    @property
    def factor(self) -> float:
        """With which the longest source may have as long a translation."""
        return max(0, self.length - 10) / self.length

    @property
    def lengths(self) -> np.ndarray:
        """Of the sources, their ends included."""
        return np.random.default_rng(0).integers(2, self.length + 1, self.rows)

    @property
    def limits(self) -> np.ndarray:
        """Most tokens of the translations."""
        return np.minimum((self.factor * self.lengths).astype(int) + 10, self.length)

    def sides(self) -> list[Encoded]:
        """Source and target."""
        return [encoded(self.lengths, self.vocabulary, seed) for seed in (0, 1)]

    def train_batches(self, tokens_per_batch: int = 4096) -> SentenceBatches:
        """In buckets, shuffled."""
        sides = self.sides()
        plan = make_plan(*sides, count=self.buckets, tokens_per_batch=tokens_per_batch)
        return SentenceBatches(*sides, plan, seed=0)

    def evaluation_batches(self, tokens_per_batch: int) -> SentenceBatches:
        """In buckets, one after another."""
        sides = self.sides()
        plan = make_plan(*sides, count=self.buckets, tokens_per_batch=tokens_per_batch)
        return SentenceBatches(*sides, plan)


@dataclasses.dataclass(frozen=True)
class Text:
    """A text in parallel streams: `train_batches` as a `Dataset` gives them."""

    rows: int
    length: int
    vocabulary: int

    def train_batches(self) -> TextBatches:
        """Segments of it, for ever."""
        size = np.asarray([self.rows * self.length * BATCHES])
        text = encoded(size, self.vocabulary, seed=0)
        return TextBatches(text, rows=self.rows, length=self.length)
