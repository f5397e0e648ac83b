"""Prints a config's corpus: sizes, lengths, vocabulary, padding and examples.

python -m data.describe --config=configs/multi30k.py:rnn

Of labelled and tagged texts it also counts labels and the texts that are cut.
"""

import resource
import time
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict, config_flags

from data.dataset import Dataset, open_dataset
from data.pairs import describe_columns, open_pairs_dataset
from data.token_cache import TokenizedSplit
from data.tokenizers.base import UNK
from data.tokenizers.build import count_lossy_characters
from utils import cli
from utils.text_tables import align_columns

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: configs/DATA.py:MODEL.", lock_config=True
)
OPENERS = {  # by `cfg.task`; those of encoders are in data/understanding/describe.py
    "language_modeling": open_dataset,
    "translation": open_dataset,
    "text_to_text": open_pairs_dataset,
}
NUM_EXAMPLES = 3
MAX_CHARACTERS = 500  # of an example that is printed


def describe(dataset: Dataset, cfg: ConfigDict) -> Iterator[str]:
    """Yields the lines of the description of texts or of parallel texts."""
    corpus = dataset.corpus
    yield f"{corpus.name} {corpus.version}, {corpus.kind}"
    if cfg.task == "text_to_text":
        yield from describe_columns(dataset)
    head = ("split", "side", "examples", "tokens", "mean", "median", "95%", "longest")
    rows = [(*head, "unknown")]
    for split, sides in dataset.tokenized.items():
        for side, tokenized in sides.items():
            rows.append((split, side, *length_statistics(tokenized)))
    yield from align_columns(rows, "<<" + ">" * (len(rows[0]) - 2))
    for side, tokenizer in dataset.tokenizers.items():
        yield f"vocabulary, {side}: {tokenizer.vocab_size:,} ({tokenizer.kind})"
    lossy = count_lossy_characters(corpus, dataset.tokenized, dataset.tokenizers)
    for side, counts in lossy.items():
        named = ", ".join(f"{n:,} of U+{ord(c):04X}" for c, n in counts.most_common())
        yield f"not restored by decoding, {side}: {named or 'no character'}"
    batches = dataset.train_batches()
    shapes = " ".join("x".join(map(str, shape)) for shape in batches.shapes)
    yield f"training: {batches.epoch_length:,} batches an epoch, shapes {shapes}"
    if corpus.kind == "parallel":
        yield f"padding: {batches.padding_fraction:.1%}"
    for reason, count in dataset.dropped.items():
        yield f"left out of training: {count:,} {reason}"
    yield from describe_examples(dataset)


def length_statistics(tokenized: TokenizedSplit) -> tuple[str, ...]:
    """Returns examples, tokens, statistics of lengths, and the unknown fraction."""
    lengths = tokenized.lengths
    median, high = np.percentile(lengths, [50, 95]) if len(lengths) else (0, 0)
    unknown = np.count_nonzero(tokenized.tokens == UNK) / max(len(tokenized.tokens), 1)
    return (
        f"{len(lengths):,}",
        f"{len(tokenized.tokens):,}",
        f"{lengths.mean():,.1f}",
        f"{median:,.0f}",
        f"{high:,.0f}",
        f"{lengths.max():,}",
        f"{unknown:.2%}",
    )


def describe_examples(dataset: Dataset) -> Iterator[str]:
    """Yields the first training examples, as text and as tokens."""
    tokenizers = dataset.tokenizers.items()
    for number, texts in enumerate(dataset.corpus.read("train", 0, NUM_EXAMPLES)):
        for text, (side, tokenizer) in zip(texts, tokenizers, strict=True):
            yield f"[{number}] {side}: {text[:MAX_CHARACTERS]!r}"
            ids = tokenizer.encode(text[:MAX_CHARACTERS])
            yield f"    {' '.join(tokenizer.pieces(ids))}"


def main() -> None:
    """Prints the description; progress goes to standard error."""
    if CONFIG.value is None:
        cli.fail("flag --config=configs/DATA.py:MODEL is missing")
    start, cfg = time.monotonic(), CONFIG.value
    if cfg.task in OPENERS:
        dataset, lines = OPENERS[cfg.task](cfg.data), describe
    else:
        from data.understanding import describe as understanding

        dataset, lines = understanding.open_dataset(cfg), understanding.describe
    dataset.train_batches()[0]
    cost = elapsed_and_peak_memory(start)
    for line in lines(dataset, cfg):
        print(line)
    print(f"to the first batch: {cost}")


def elapsed_and_peak_memory(start: float) -> str:
    """Returns the seconds since `start` and the peak resident memory, as a phrase."""
    seconds = time.monotonic() - start
    own, children = (
        resource.getrusage(who).ru_maxrss / 2**10  # of children the largest one
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    workers = f", {children:,.0f} MiB at most in each process it started"
    return f"{seconds:.1f} s, {own:,.0f} MiB at most" + (workers if children else "")


if __name__ == "__main__":
    cli.run_main(main)
