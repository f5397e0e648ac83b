"""What is timed, as data: sizes that ours and every peer build the same model of.

A work's matrix products say both how much it computes and at which shapes a process
is asked for its ceiling. Standard library only: peers run where JAX is not.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Work:
    """A model and its input, all of it full: no padding but in the masks.

    Attributes:
      model: one of `cfg.model.name`.
      rows, length: of a batch; a source is as long as its target.
      memory: tokens a language model remembers.
      goals: how many times as fast as the fastest peer, or a named one, ours should
        be.
      on_accelerators: whether it is too large for processors.
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
        """Predicted in a step."""
        return self.rows * self.length

    @property
    def is_translation(self) -> bool:
        """Whether there is a source."""
        return self.model != "transformer_xl"

    def shrunk(self) -> "Work":
        """The same in seconds, to see it work."""
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
        """Of all of them, a multiplication and an addition being two."""
        return 2 * self.batch * self.rows * self.inner * self.columns * self.count


def transposed(one: Product) -> Iterator[Product]:
    """What its backward pass computes: the gradients of both factors."""
    batch, rows, inner, columns, count = one
    yield Product(batch, rows, columns, inner, count)
    yield Product(batch, inner, rows, columns, count)


def flops(products: list[Product]) -> int:
    """Of matrix products alone: nothing elementwise, no optimiser."""
    return sum(one.flops for one in products)


def training_products(work: Work, *, distances: bool = True) -> list[Product]:
    """Of a step: forwards and, but for what needs no gradient, backwards.

    Args:
      distances: see `transformer_xl`.
    """
    forward = {"transformer": encoder_decoder, "rnn": recurrent}
    found = []
    if work.model in forward:
        for one in forward[work.model](work):
            found += [one, *transposed(one)]
        return found
    learnt, remembered = transformer_xl(work, distances)
    for one in learnt:
        found += [one, *transposed(one)]
    for one in remembered:  # a memory's states are given: no gradient of theirs
        found += [one, list(transposed(one))[1]]
    return found


def attention(work: Work, queries: int, keys: int, count: int) -> list[Product]:
    """Scores and sums of values of `count` attentions."""
    each, batch = work.width // work.heads, work.rows * work.heads
    return [
        Product(batch, queries, each, keys, count),
        Product(batch, queries, keys, each, count),
    ]


def feed_forward(work: Work, rows: int, count: int) -> list[Product]:
    """Both products of `count` layers."""
    width, inner = work.width, work.feed_forward
    return [
        Product(1, rows, width, inner, count),
        Product(1, rows, inner, width, count),
    ]


def encoder_decoder(work: Work) -> list[Product]:
    """Forwards: 4 products of an encoder's layer, 8 of a decoder's, and the logits."""
    tokens, width, layers = work.tokens, work.width, work.layers
    return [
        Product(1, tokens, width, width, 12 * layers),
        *feed_forward(work, tokens, 2 * layers),
        *attention(work, work.length, work.length, 3 * layers),
        Product(1, tokens, width, work.vocabulary),
    ]


def transformer_xl(work: Work, distances: bool) -> tuple[list[Product], list[Product]]:
    """Forwards: what all of is learnt through, and keys and values of a memory.

    Args:
      distances: whether they are projected and scored, as in the paper.
    """
    tokens, width, layers = work.tokens, work.width, work.layers
    slots = work.memory + work.length
    scores, values = attention(work, work.length, slots, layers)
    learnt = [
        Product(1, tokens, width, width, 4 * layers),
        *feed_forward(work, tokens, layers),
        scores,
        values,
        Product(1, tokens, width, work.vocabulary),
    ]
    if distances:
        learnt += [Product(1, slots, width, width, layers), scores]
    return learnt, [Product(1, work.rows * work.memory, width, width, 2 * layers)]


def recurrent(work: Work) -> list[Product]:
    """Forwards: a bidirectional GRU, keys, and a GRU that attends at every step."""
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
    """Forwards, with a cache: the source once, then a step a token."""
    tokens, width, layers, steps = work.tokens, work.width, work.layers, work.length
    rows = work.rows * beam
    seen = (steps + 1) // 2  # by a token, on average, of those before it
    each = attention(work, 1, 1, layers * steps)
    return [
        Product(1, tokens, width, width, (4 + 2) * layers),
        *feed_forward(work, tokens, layers),
        *attention(work, steps, steps, layers),
        Product(1, rows, width, width, 6 * layers * steps),
        *feed_forward(work, rows, layers * steps),
        *(widened(one, beam, keys) for one in each for keys in (seen, steps)),
        Product(1, rows, width, work.vocabulary, steps),
    ]


def widened(one: Product, beam: int, keys: int) -> Product:
    """An attention of one query to one key, of all hypotheses to so many keys."""
    batch = one.batch * beam
    if one.columns == 1:  # scores
        return one._replace(batch=batch, columns=keys)
    return one._replace(batch=batch, inner=keys)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What batches are made of.

    Attributes:
      rows: pairs of all sentences, or parallel streams.
      length: of the longest sentence, or tokens a stream moves on by.
      batches: of a step, so that it lasts long enough to see who disturbs it.
      tokens_per_batch: of sentences, the most that a side of a batch may have.
    """

    rows: int
    length: int
    vocabulary: int
    batches: int
    tokens_per_batch: int = 0

    def shrunk(self) -> "Corpus":
        """The same in less than a second."""
        return dataclasses.replace(self, rows=min(self.rows, 64), batches=20)


CORPORA = {
    "sentences": Corpus(
        rows=50_000, length=64, vocabulary=8000, batches=100, tokens_per_batch=4096
    ),
    "text": Corpus(rows=32, length=128, vocabulary=8000, batches=1000),
}
