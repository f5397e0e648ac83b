"""Workloads: model and batch sizes that every measured system builds.

The matrix products of a workload give its FLOPs and the shapes at which the peak matmul
rate is measured. Standard library only, since other libraries run without JAX.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Work:
    """Sizes of a model and its batch, which has no padding.

    Attributes:
      model: a value of `cfg.model.name`.
      rows: batch size.
      length: tokens per row; a source is as long as its target.
      memory: memory length of a language model.
    """

    name: str
    model: str
    rows: int
    length: int
    vocabulary: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    memory: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens predicted per step."""
        return self.rows * self.length

    @property
    def is_translation(self) -> bool:
        """True for an encoder-decoder."""
        return self.model != "transformer_xl"

    def shrunk(self) -> "Work":
        """Returns a tiny version for tests."""
        sizes = (2, 4, 32, 1, 64, 2, 128, min(4, self.memory))
        return Work(self.name, self.model, *sizes)


WORKS = {
    name: Work(name, *sizes)
    for name, sizes in {
        # model, rows, length, vocabulary, layers, width, heads, feed_forward, memory
        "small": ("transformer", 64, 32, 8000, 3, 256, 4, 1024),
        "base": ("transformer", 16, 64, 16000, 6, 512, 8, 2048),
        "xl_small": ("transformer_xl", 16, 128, 256, 6, 256, 8, 1024, 128),
        "rnn_small": ("rnn", 64, 32, 8000, 1, 256, 1, 256),
        # As wide and as long as Bahdanau et al. (2015); too large for CPUs.
        "rnnsearch": ("rnn", 80, 50, 30000, 1, 1000, 1, 1000),
    }.items()
}


class Product(NamedTuple):
    """`count` times a batch of products of [rows, inner] with [inner, columns]."""

    batch: int
    rows: int
    inner: int
    columns: int
    count: int = 1

    @property
    def flops(self) -> int:
        """FLOPs of all products, 2 per multiply-add."""
        return 2 * self.batch * self.rows * self.inner * self.columns * self.count


def transposed(one: Product) -> Iterator[Product]:
    """Yields the products of the backward pass: gradients of both factors."""
    batch, rows, inner, columns, count = one
    yield Product(batch, rows, columns, inner, count)
    yield Product(batch, inner, rows, columns, count)


def flops(products: list[Product]) -> int:
    """Returns the FLOPs of matrix products."""
    return sum(one.flops for one in products)


def training_products(work: Work, *, distances: bool = True) -> list[Product]:
    """Returns the products of a training step, forward and backward.

    Args:
      distances: whether relative positions are projected and scored.
    """
    memory = []
    if work.model == "transformer_xl":
        trained, memory = transformer_xl(work, distances)
    else:
        trained = encoder_decoder(work) if work.model == "transformer" else rnn(work)
    found = [each for one in trained for each in (one, *transposed(one))]
    for one in memory:  # no gradient flows into the memory
        _, kernel_gradient = transposed(one)
        found += [one, kernel_gradient]
    return found


def attention(work: Work, queries: int, keys: int, count: int) -> list[Product]:
    """Returns the products of `count` attention layers."""
    each, batch = work.width // work.heads, work.rows * work.heads
    return [
        Product(batch, queries, each, keys, count),
        Product(batch, queries, keys, each, count),
    ]


def feed_forward(work: Work, rows: int, count: int) -> list[Product]:
    """Returns the products of `count` feed-forward layers."""
    width, inner = work.width, work.feed_forward
    return [
        Product(1, rows, width, inner, count),
        Product(1, rows, inner, width, count),
    ]


def encoder_decoder(work: Work) -> list[Product]:
    """Returns the forward products: 4 per encoder and 8 per decoder layer, logits."""
    tokens, width, layers = work.tokens, work.width, work.layers
    return [
        Product(1, tokens, width, width, 12 * layers),
        *feed_forward(work, tokens, 2 * layers),
        *attention(work, work.length, work.length, 3 * layers),
        Product(1, tokens, width, work.vocabulary),
    ]


def transformer_xl(work: Work, distances: bool) -> tuple[list[Product], list[Product]]:
    """Returns the forward products with full gradients, and those of the memory."""
    tokens, width, layers = work.tokens, work.width, work.layers
    slots = work.memory + work.length
    scores, values = attention(work, work.length, slots, layers)
    products = [
        Product(1, tokens, width, width, 4 * layers),
        *feed_forward(work, tokens, layers),
        scores,
        values,
        Product(1, tokens, width, work.vocabulary),
    ]
    if distances:
        products += [Product(1, slots, width, width, layers), scores]
    return products, [Product(1, work.rows * work.memory, width, width, 2 * layers)]


def rnn(work: Work) -> list[Product]:
    """Returns the forward products of a bidirectional GRU and an attentive GRU."""
    tokens, rows, steps = work.tokens, work.rows, work.length
    width, vocabulary = work.width, work.vocabulary
    both, gates = 2 * width, 3 * width
    return [
        Product(1, tokens, width, gates, 2 + 1),  # words, of both directions and there
        Product(1, rows, width, gates, (2 + 1) * steps),  # states
        Product(1, rows, both, gates, steps),  # contexts
        Product(1, tokens, both, width, 1 + 1),  # keys; contexts in the readout
        Product(1, rows, width, width, steps + 1),  # queries; the first state
        Product(rows, steps, width, steps),  # scores
        Product(rows, steps, steps, both),  # contexts
        Product(1, tokens, width, width, 2),  # words and states in the readout
        Product(1, tokens, width, vocabulary),
    ]


def decoding_products(work: Work, beam: int) -> list[Product]:
    """Returns the products of a search with a key/value cache."""
    tokens, width, layers, steps = work.tokens, work.width, work.layers, work.length
    rows = work.rows * beam
    beams = dataclasses.replace(work, rows=rows)
    average = (steps + 1) // 2  # of the keys that a token attends to
    return [
        Product(1, tokens, width, width, (4 + 2) * layers),
        *feed_forward(work, tokens, layers),
        *attention(work, steps, steps, layers),
        Product(1, rows, width, width, 6 * layers * steps),
        *feed_forward(work, rows, layers * steps),
        *attention(beams, 1, average, layers * steps),
        *attention(beams, 1, steps, layers * steps),
        Product(1, rows, width, work.vocabulary, steps),
    ]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Sizes of a corpus.

    Attributes:
      rows: number of sentence pairs or parallel streams.
      length: longest sentence, or tokens per segment.
      batches: batches per step, so that a step is long enough to time.
      tokens_per_batch: most tokens per side of a batch of sentences.
    """

    rows: int
    length: int
    vocabulary: int
    batches: int
    tokens_per_batch: int = 0

    def shrunk(self) -> "Corpus":
        """Returns a tiny version for tests."""
        return dataclasses.replace(self, rows=min(self.rows, 64), batches=20)


CORPORA = {
    "sentences": Corpus(
        rows=50_000, length=64, vocabulary=8000, batches=100, tokens_per_batch=4096
    ),
    "text": Corpus(rows=32, length=128, vocabulary=8000, batches=1000),
}


def select(sizes: dict, name: str, tiny: bool):
    """Returns an entry of WORKS or CORPORA, or its tiny version."""
    return sizes[name].shrunk() if tiny else sizes[name]
