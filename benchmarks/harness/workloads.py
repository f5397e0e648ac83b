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
      goals: goals of the speed ratio to the fastest or a named system.
      on_accelerators: whether it is too large for CPUs.
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
    goals: tuple[tuple[str, float], ...] = ()
    on_accelerators: bool = False

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
        small = {"rows": 2, "length": 4, "vocabulary": 32, "layers": 1}
        sizes = {"width": 64, "heads": 2, "feed_forward": 128}
        return dataclasses.replace(
            self, **small, **sizes, memory=4 if self.memory else 0
        )


FASTEST, ORIGINAL = "fastest", "original"

WORKS = {
    work.name: work
    for work in (
        Work(
            name="small",
            model="transformer",
            rows=64,
            length=32,
            vocabulary=8000,
            layers=3,
            width=256,
            heads=4,
            feed_forward=1024,
            goals=((FASTEST, 1.25),),
        ),
        Work(
            name="base",
            model="transformer",
            rows=16,
            length=64,
            vocabulary=16000,
            layers=6,
            width=512,
            heads=8,
            feed_forward=2048,
            goals=((FASTEST, 1.05),),
        ),
        Work(
            name="xl_small",
            model="transformer_xl",
            rows=16,
            length=128,
            vocabulary=256,
            layers=6,
            width=256,
            heads=8,
            feed_forward=1024,
            memory=128,
            goals=((FASTEST, 1.15), (ORIGINAL, 3.5)),
        ),
        Work(
            name="rnn_small",
            model="rnn",
            rows=64,
            length=32,
            vocabulary=8000,
            layers=1,
            width=256,
            heads=1,
            feed_forward=256,
            goals=((FASTEST, 1.4),),
        ),
        Work(  # as wide and as long as Bahdanau et al. (2015)
            name="rnnsearch",
            model="rnn",
            rows=80,
            length=50,
            vocabulary=30000,
            layers=1,
            width=1000,
            heads=1,
            feed_forward=1000,
            goals=((FASTEST, 5.0),),
            on_accelerators=True,
        ),
    )
}
USUAL = tuple(name for name, work in WORKS.items() if not work.on_accelerators)


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
      work: the workload.
      distances: whether relative positions are projected and scored.
    """
    forward = {"transformer": encoder_decoder, "rnn": recurrent}
    found = []
    if work.model in forward:
        for one in forward[work.model](work):
            found += [one, *transposed(one)]
        return found
    trained, memory = transformer_xl(work, distances)
    for one in trained:
        found += [one, *transposed(one)]
    for one in memory:  # no gradient flows into the memory
        found += [one, list(transposed(one))[1]]
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
    """Returns the forward products with full gradients, and those of the memory.

    Args:
      work: the workload.
      distances: whether relative positions are projected and scored.
    """
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


def recurrent(work: Work) -> list[Product]:
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
    average = (steps + 1) // 2  # of the keys that a token attends to
    each = attention(work, 1, 1, layers * steps)
    return [
        Product(1, tokens, width, width, (4 + 2) * layers),
        *feed_forward(work, tokens, layers),
        *attention(work, steps, steps, layers),
        Product(1, rows, width, width, 6 * layers * steps),
        *feed_forward(work, rows, layers * steps),
        *(expanded(one, beam, keys) for one in each for keys in (average, steps)),
        Product(1, rows, width, work.vocabulary, steps),
    ]


def expanded(one: Product, beam: int, keys: int) -> Product:
    """Returns a product of one query and key for all beams and `keys` keys."""
    batch = one.batch * beam
    if one.columns == 1:  # scores
        return one._replace(batch=batch, columns=keys)
    return one._replace(batch=batch, inner=keys)


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
