"""Descriptions of labelled tables and of documents, for `python -m data.describe`."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data.corpus import TRAIN
from data.tokenizers.base import UNK
from data.understanding.dataset import open_labeled
from data.understanding.labels import parse_grades
from data.understanding.masked_dataset import open_masked
from data.understanding.masking import MaskingOptions
from data.understanding.relations import open_relations
from data.understanding.tagged import open_tagged
from utils.errors import UserError
from utils.text_tables import align_columns

NO_LIMIT = 2**30  # of the tokens of a text
MAX_LABELS = 40  # listed of a column, the most frequent
NUM_EXAMPLES = 3
MAX_CHARACTERS = 300  # of an example's text
MAX_PIECES = 60  # of an example
NUM_PROBES = 20  # batches whose padding is counted

OPENERS: dict[str, Callable[[ConfigDict], Any]] = {  # by `cfg.task`
    "classification": lambda cfg: open_labeled(
        cfg.data, regression=cfg.head.regression
    ),
    "relation_extraction": lambda cfg: open_relations(cfg.data),
    "tagging": lambda cfg: open_tagged(cfg.data),
    "masked_language_modeling": lambda cfg: open_masked(
        cfg.data, MaskingOptions(**cfg.mlm)
    ),
}


def open_dataset(cfg: ConfigDict):
    """Opens the dataset of an experiment. Raises UserError for an unknown task."""
    if cfg.task not in OPENERS:
        raise UserError(
            f"Unknown task {cfg.task!r}; choose one of language_modeling, translation, "
            f"text_to_text, {', '.join(OPENERS)}"
        )
    return OPENERS[cfg.task](cfg)


def describe(dataset, cfg: ConfigDict) -> Iterator[str]:
    """Yields the lines of the description of a task's dataset."""
    corpus = dataset.corpus
    yield f"{corpus.name} {corpus.version}, columns {', '.join(sorted(corpus.columns))}"
    is_masked = cfg.task == "masked_language_modeling"
    yield from describe_documents(dataset) if is_masked else describe_texts(dataset)
    for side, tokenizer in dataset.tokenizers.items():
        kind = f"vocabulary ({tokenizer.kind})" if side == "text" else f"{side}s"
        yield f"{kind}: {tokenizer.vocab_size:,}"
    if not is_masked:
        for column in (cfg.data.tag_column, cfg.data.label_column):
            if column:
                is_graded = cfg.head.regression
                yield from (count_grades if is_graded else count_labels)(
                    dataset.corpus, column
                )
    batches = dataset.train_batches()
    shapes = " ".join("x".join(map(str, shape)) for shape in batches.shapes)
    yield f"training: {batches.epoch_length:,} batches an epoch, shapes {shapes}"
    masks = [batches[k]["mask"] for k in range(min(NUM_PROBES, batches.epoch_length))]
    padding = 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    yield f"padding: {padding:.1%} of the first {len(masks)} batches"
    yield from (masked_examples if is_masked else labeled_examples)(dataset, batches)


def describe_texts(dataset) -> Iterator[str]:
    """Yields the lengths of texts in tokens, and how many are cut."""
    cfg = dataset.cfg.copy_and_resolve_references()
    limit, cfg.max_length = cfg.max_length, NO_LIMIT
    whole = dataclasses.replace(dataset, cfg=cfg)
    head = ("split", "examples", "tokens", "mean", "median", "95%", "longest")
    rows = [(*head, "cut", "unknown")]
    for split in dataset.corpus.splits:
        texts = whole.examples(split)
        ids = np.concatenate([texts[i][0] for i in range(len(texts))] or [[0]])
        cut = f"{dataset.examples(split).num_cut:,}"
        rows.append((split, *length_cells(texts.lengths), cut, unknown_share(ids)))
    yield from align_columns(rows, "<" + ">" * (len(rows[0]) - 1))
    ends = "lengths count <bos> and <eos>, which stand for [CLS] and [SEP]"
    yield f"{ends}; cut: longer than data.max_length={limit}"


def describe_documents(dataset) -> Iterator[str]:
    """Yields the numbers of documents and sentences, and lengths of sentences."""
    head = ("split", "documents", "sentences", "tokens", "mean", "median", "95%")
    rows = [(*head, "longest", "unknown")]
    for split, documents in dataset.documents.items():
        cells = length_cells(np.diff(documents.sentences))
        count, unknown = f"{len(documents):,}", unknown_share(documents.tokens)
        rows.append((split, count, *cells, unknown))
    yield from align_columns(rows, "<" + ">" * (len(rows[0]) - 1))
    yield "lengths are those of sentences, in tokens"


def length_cells(lengths: np.ndarray) -> tuple[str, ...]:
    """Returns number, sum, mean, median, 95th percentile and maximum of lengths."""
    median, high = np.percentile(lengths, [50, 95]) if len(lengths) else (0, 0)
    longest = lengths.max(initial=0)
    return (
        *(f"{len(lengths):,}", f"{lengths.sum():,}", f"{np.mean(lengths):,.1f}"),
        *(f"{median:,.0f}", f"{high:,.0f}", f"{longest:,}"),
    )


def unknown_share(ids: np.ndarray) -> str:
    """Returns the percentage of unknown tokens."""
    return f"{np.count_nonzero(ids == UNK) / max(len(ids), 1):.2%}"


def column_values(corpus, column: str, split: str) -> Iterator[str]:
    """Yields the labels of a column, or all tags of its sequences."""
    for (value,) in corpus.read_columns(split, (column,)):
        yield from [value] if isinstance(value, str) else value


def count_labels(corpus, column: str) -> Iterator[str]:
    """Yields how often each split has each label, the most frequent first."""
    counts = {
        split: collections.Counter(column_values(corpus, column, split))
        for split in corpus.splits
    }
    total = sum(counts.values(), collections.Counter())
    rows = [(column, *counts)]
    for label, _ in total.most_common(MAX_LABELS):
        rows.append(
            (label or "(none)", *(f"{one[label]:,}" for one in counts.values()))
        )
    yield from align_columns(rows, "<" + ">" * len(counts))
    if len(total) > MAX_LABELS:
        yield f"and {len(total) - MAX_LABELS:,} rarer ones"


def count_grades(corpus, column: str) -> Iterator[str]:
    """Yields smallest, mean and largest grade of each split."""
    for split in corpus.splits:
        texts = list(column_values(corpus, column, split))
        found = [text for text in texts if text]
        grades = parse_grades(found, column, split)
        if len(found) < len(texts):
            yield f"{column}, {split}: {len(texts) - len(found)} without a grade"
        if not found:
            continue
        low, mean, high = grades.min(), grades.mean(), grades.max()
        yield f"{column}, {split}: {low:g} to {high:g}, mean {mean:.3f}"


def labeled_examples(dataset, batches) -> Iterator[str]:
    """Yields the first training examples with all columns that the task reads."""
    cfg, tokenizer = dataset.cfg, dataset.tokenizers["text"]
    keys = ("text_column", "pair_column", "tag_column", "label_column")
    columns = tuple(filter(None, (cfg[key] for key in keys)))
    texts = dataset.examples(TRAIN)
    rows = dataset.corpus.read_columns(TRAIN, columns, 0, NUM_EXAMPLES)
    for number, row in enumerate(rows):
        for column, value in zip(columns, row, strict=True):
            text = value if isinstance(value, str) else " ".join(value)
            yield f"[{number}] {column}: {text[:MAX_CHARACTERS]!r}"
        yield f"    {format_pieces(tokenizer, texts[number][0].tolist())}"


def masked_examples(dataset, batches) -> Iterator[str]:
    """Yields the first training examples as the model reads them, and its labels."""
    batch, tokenizer = batches[0], dataset.tokenizers["text"]
    for row in range(min(NUM_EXAMPLES, len(batch["tokens"]))):
        ids = batch["tokens"][row][batch["mask"][row]].tolist()
        yield f"[{row}] {format_pieces(tokenizer, ids)}"
        labels = batch["labels"][row][batch["weights"][row] > 0].tolist()
        is_next = f"; next: {bool(batch['is_next'][row])}" if "is_next" in batch else ""
        yield f"    predicted: {format_pieces(tokenizer, labels)}{is_next}"


def format_pieces(tokenizer, ids: list[int]) -> str:
    """Formats the pieces of token ids, the first MAX_PIECES of them."""
    pieces = tokenizer.pieces(ids[:MAX_PIECES])
    return " ".join(itertools.chain(pieces, ["..."] if len(ids) > MAX_PIECES else []))
