"""Says what a config's corpus is: sizes, lengths, vocabulary, padding, examples.

python -m data.describe --config=configs/multi30k.py:rnn
"""

import resource
import time
from collections.abc import Iterator

import numpy as np
from ml_collections import config_flags

from data.dataset import Dataset, open_dataset
from data.token_cache.reader import Encoded
from data.tokenizers.serialization import UNK, Tokenizer
from utils import cli

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
EXAMPLES = 3
WIDEST = 500  # characters of an example that are shown


def described(dataset: Dataset) -> Iterator[str]:
    """The description, a line at a time."""
    corpus = dataset.corpus
    yield f"{corpus.name} {corpus.version}, {corpus.kind}"
    head = ("split", "side", "examples", "tokens", "mean", "median", "95%", "longest")
    rows = [(*head, "unknown")]
    for split, sides in dataset.encoded.items():
        for side, encoded in sides.items():
            rows.append((split, side, *numbers(encoded)))
    yield from table(rows)
    for side, tokenizer in dataset.tokenizers.items():
        yield f"vocabulary, {side}: {tokenizer.vocab_size:,} ({tokenizer.kind})"
    yield from batches_of(dataset)
    for reason, count in dataset.dropped.items():
        yield f"left out of training: {count:,} {reason}"
    yield from examples(dataset)


def numbers(encoded: Encoded) -> tuple[str, ...]:
    """Examples, tokens, their lengths, and the share of unknown tokens."""
    lengths = encoded.lengths
    middle, high = np.percentile(lengths, [50, 95]) if len(lengths) else (0, 0)
    unknown = np.count_nonzero(encoded.tokens == UNK) / max(len(encoded.tokens), 1)
    return (
        f"{len(lengths):,}",
        f"{len(encoded.tokens):,}",
        f"{lengths.mean():,.1f}",
        f"{middle:,.0f}",
        f"{high:,.0f}",
        f"{lengths.max():,}",
        f"{unknown:.2%}",
    )


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows of columns that stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(cells)
        )


def batches_of(dataset: Dataset) -> Iterator[str]:
    """Shapes of training's batches and what of them is padding."""
    batches = dataset.train_batches()
    shapes = " ".join("x".join(map(str, shape)) for shape in batches.shapes)
    yield f"training: {batches.epoch_length:,} batches an epoch, shapes {shapes}"
    if dataset.is_parallel:
        yield f"padding: {batches.padding:.1%}"


def examples(dataset: Dataset) -> Iterator[str]:
    """The first few of training, as text and as tokens."""
    texts = dataset.corpus.read("train", 0, EXAMPLES)
    for number, sides in enumerate(texts):
        for text, (side, tokenizer) in zip(
            sides, dataset.tokenizers.items(), strict=True
        ):
            yield f"[{number}] {side}: {text[:WIDEST]!r}"
            yield f"    {pieces(tokenizer, text[:WIDEST])}"


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """A text as its tokens, with spaces between them."""
    return " ".join(tokenizer.pieces(tokenizer.encode(text)))


def main() -> None:
    """Prints the description; progress goes to standard error."""
    if CONFIG.value is None:
        cli.fail("flag --config=configs/DATA.py:MODEL is missing")
    begun = time.monotonic()
    dataset = open_dataset(CONFIG.value.data)
    dataset.train_batches()[0]
    cost = spent(begun)
    for line in described(dataset):
        print(line)
    print(f"to the first batch: {cost}")


def spent(begun: float) -> str:
    """Seconds since `begun`, and the most memory this program had of the machine's."""
    seconds = time.monotonic() - begun
    own, others = (
        resource.getrusage(who).ru_maxrss / 2**10  # of others the largest one
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    helped = f", {others:,.0f} MiB at most in each process it started"
    return f"{seconds:.1f} s, {own:,.0f} MiB at most" + (helped if others else "")


if __name__ == "__main__":
    cli.run_main(main)
