"""Pairs of texts: two columns of a table, read as a parallel corpus."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from data.corpus import TRAIN
from data.dataset import Dataset, tokenize_corpus
from data.table import TextColumns, check_columns, open_table
from data.tokenizers.base import Tokenizer
from utils.errors import UserError


def open_pairs_dataset(
    cfg: ConfigDict, tokenizers: dict[str, Tokenizer] | None = None
) -> Dataset:
    """Prepares and tokenizes the pairs of `cfg.name`, or opens them if that was done.

    Args:
      cfg: the experiment's `cfg.data`.
      tokenizers: tokenizers of a run, by side; None: learn them on the training split.

    Raises:
      UserError: the corpus cannot be opened, lacks a column, or a setting is invalid.
    """
    return tokenize_corpus(open_pairs(cfg), cfg, tokenizers)


def open_pairs(cfg: ConfigDict) -> TextColumns:
    """Opens two columns of the corpus `cfg.name` as a parallel corpus.

    They are `source_column` and `target_column`; where the corpus is parallel itself,
    its languages unless these are set.

    Raises:
      UserError: the corpus cannot be opened or lacks a column, or the examples of a
        split other than training differ in their number of references.
    """
    table = open_table(cfg)
    sides = {}
    for key, default in zip(
        ("source_column", "target_column"), _sides(table), strict=True
    ):
        sides[key] = cfg[key] or default
        if sides[key] is None:
            raise UserError(
                f"data.{key} is not set: choose one of {', '.join(table.columns)}"
            )
    further = {
        f"reference_columns[{i}]": column
        for i, column in enumerate(cfg.reference_columns)
    }
    check_columns(table, sides | further)
    if cfg.reverse and further:
        raise UserError(
            "data.reverse=True leaves data.reference_columns without a target: "
            "exchange data.source_column and data.target_column"
        )
    for split in table.splits:
        if further and split != TRAIN:
            check_reference_counts(table, split, cfg.reference_columns)
    fields = tuple(sides.values())
    return dataclasses.replace(
        table, kind="parallel", fields=fields, languages=_languages(table, fields)
    )


def _sides(table: TextColumns) -> tuple[str | None, str | None]:
    """Returns the columns of source and target that the corpus declares, if any."""
    return table.languages if len(table.languages) == 2 else (None, None)


def _languages(table: TextColumns, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the languages of both columns, or () if they are unknown."""
    if table.languages:
        return fields if {*fields} <= {*table.languages} else ()
    language = getattr(table.builder, "language", "")
    return (language, language) if language else ()


def check_reference_counts(
    table: TextColumns, split: str, columns: tuple[str, ...]
) -> None:
    """Raises UserError unless all examples have the same number of references.

    A blank text is no reference.
    """
    texts = [table.column(split, column) for column in columns]
    counts = [sum(map(bool, map(str.strip, row))) for row in zip(*texts, strict=True)]
    for number, count in enumerate(counts):
        if count != counts[0]:
            raise UserError(
                f"{table.name}, split {split!r}: example {number + 1} has {count} "
                f"texts in data.reference_columns={', '.join(columns)}, and the first "
                f"example has {counts[0]}: all need the same number of references"
            )


def describe_columns(dataset: Dataset) -> Iterator[str]:
    """Yields the columns of text pairs, and the number of references by split."""
    corpus = dataset.corpus
    source, target = corpus.fields
    others = ", ".join(c for c in corpus.columns if c not in corpus.fields)
    yield f"from {source} to {target}; further columns: {others or 'none'}"
    if dataset.cfg.reference_columns:
        counts = ", ".join(
            f"{len(next(iter(dataset.references(split)), []))} {split}"
            for split in corpus.splits
        )
        yield f"references of an example: {counts}"
