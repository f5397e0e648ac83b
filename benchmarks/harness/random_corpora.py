"""Random corpora with the interface of a training corpus."""

import dataclasses

import numpy as np

from data.batching.bucketed import BucketedBatches
from data.batching.buckets import plan_batches
from data.batching.stream import LMStreamBatches
from data.token_cache import TokenizedSplit
from data.tokenizers.base import EOS, SPECIAL
from data.tokenizers.symbols import WordTokenizer

BATCHES = 4  # number of different batches


def words(count: int) -> WordTokenizer:
    """Returns a word tokenizer with `count` entries."""
    return WordTokenizer([*SPECIAL, *map(str, range(count - len(SPECIAL)))])


def encoded(lengths: np.ndarray, vocabulary: int, seed: int) -> TokenizedSplit:
    """Returns random sentences of these lengths, end symbols included."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    random = np.random.default_rng(seed)
    tokens = random.integers(len(SPECIAL), vocabulary, offsets[-1]).astype(np.int32)
    tokens[offsets[1:] - 1] = EOS
    counts = dict.fromkeys(("characters", "words", "size"), len(tokens))
    return TokenizedSplit(tokens, offsets, **counts)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Sentence pairs of equal length, with the interface of a `Dataset`."""

    rows: int
    length: int
    vocabulary: int
    buckets: int = 1

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the sentences, end symbols included."""
        return np.full(self.rows * BATCHES, self.length)

    def train_batches(self, tokens_per_batch: int = 0) -> BucketedBatches:
        """Returns shuffled batches, by default of `rows` x `length` tokens."""
        return self.make_batches(tokens_per_batch or self.rows * self.length, seed=0)

    def make_batches(self, tokens_per_batch: int, **options) -> BucketedBatches:
        """Returns batches in buckets, in order unless there is a `seed`."""
        sides = [encoded(self.lengths, self.vocabulary, seed) for seed in (0, 1)]
        plan = plan_batches(
            *sides, num_buckets=self.buckets, tokens_per_batch=tokens_per_batch
        )
        return BucketedBatches(*sides, plan, **options)


@dataclasses.dataclass(frozen=True)
class VariedSentences(Sentences):
    """Sentence pairs of all lengths up to `length`, uniformly distributed.

    Attributes:
      factor: a translation has at most this x source + 10 tokens.
    """

    buckets: int = 4

    @property
    def factor(self) -> float:
        """Length ratio that allows the longest source an equally long translation."""
        return max(0, self.length - 10) / self.length

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the sources, end symbols included."""
        return np.random.default_rng(0).integers(2, self.length + 1, self.rows)

    @property
    def limits(self) -> np.ndarray:
        """Largest lengths of the translations."""
        return np.minimum((self.factor * self.lengths).astype(int) + 10, self.length)


@dataclasses.dataclass(frozen=True)
class Text:
    """Text in parallel streams, with the interface of a `Dataset`."""

    rows: int
    length: int
    vocabulary: int

    def train_batches(self) -> LMStreamBatches:
        """Returns an endless stream of segments."""
        size = np.asarray([self.rows * self.length * BATCHES])
        text = encoded(size, self.vocabulary, seed=0)
        return LMStreamBatches(text, batch_size=self.rows, length=self.length)
