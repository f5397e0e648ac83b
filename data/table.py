"""Corpora as tables, read by the names of their columns."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from data.corpus import BLOCK_EXAMPLES, Corpus, open_corpus
from data.registry import CORPORA
from data.storage import local_root
from utils.errors import UserError

KEPT = 95  # percent of a training split that lends its rest to validation


@dataclasses.dataclass(frozen=True)
class TextColumns(Corpus):
    """Columns of a corpus read as texts; words of a sequence are joined by spaces.

    Attributes:
      parts: the split of TFDS, or the part of one, behind each split.
    """

    parts: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns of an example."""
        return tuple(sorted(self.builder.info.features))

    def label_names(self, column: str) -> list[str] | None:
        """Returns the classes that the corpus declares for a column, if it does."""
        feature = self.builder.info.features[column]
        feature = getattr(feature, "feature", feature)  # of a sequence
        return getattr(feature, "names", None)

    def _read_fields(self, split: str, fields, start: int = 0, stop: int | None = None):
        for example in self.read_columns(split, fields, start, stop):
            yield tuple(t if isinstance(t, str) else " ".join(t) for t in example)

    def read_columns(
        self,
        split: str,
        columns: tuple[str, ...],
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[tuple[str | list[str], ...]]:
        """Yields columns of examples: texts, or lists of texts for sequences.

        Class labels are read as names, and numbers as text.
        """
        self.check_split(split)
        if not self.splits[split]:
            return
        source = self.builder.as_data_source(self.parts[split])
        names = [self.label_names(column) for column in columns]
        indices = range(len(source))[start:stop]
        for block in range(0, len(indices), BLOCK_EXAMPLES):
            chosen = list(indices[block : block + BLOCK_EXAMPLES])
            for example in source.__getitems__(chosen):
                yield tuple(
                    _as_text(example[column], known)
                    for column, known in zip(columns, names, strict=True)
                )


def _as_text(value, names: list[str] | None) -> str | list[str]:
    """Returns a stored value as text; a sequence as a list of texts."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if np.ndim(value):
        return [_as_text(one, names) for one in value]
    if names is None:
        return f"{value}"
    return names[int(value)] if value >= 0 else ""  # -1: TFDS has no label


def open_columns(cfg: ConfigDict, columns: dict[str, str | None]) -> TextColumns:
    """Opens the corpus `cfg.name` as a table.

    Args:
      cfg: the experiment's `cfg.data`.
      columns: names of columns by the key of `cfg.data` that chooses them.

    Raises:
      UserError: the corpus cannot be opened or lacks a column, or two keys choose the
        same one.
    """
    table = open_table(cfg)
    check_columns(table, columns)
    return table


def open_table(cfg: ConfigDict) -> TextColumns:
    """Opens the corpus `cfg.name` as a table. Raises UserError if that fails."""
    if not cfg.name:
        raise UserError("data.name is not set: name a corpus, --config.data.name=...")
    if "+" in cfg.name:
        raise UserError(f"data.name={cfg.name!r}: tables of columns cannot be mixed")
    root = local_root(cfg.dir, cfg.cache_dir)
    return as_table(open_corpus(cfg.name, root, cfg.source_dir, tables=True))


def check_columns(table: TextColumns, columns: dict[str, str | None]) -> None:
    """Raises UserError unless a table has all columns, each chosen by one key."""
    chosen: dict[str, str] = {}
    for key, column in columns.items():
        if column is None:
            continue
        if column not in table.columns:
            raise UserError(
                f"data.{key}={column!r}: {table.name} has the columns "
                f"{', '.join(table.columns)}{header_hint(table)}"
            )
        if column in chosen:
            raise UserError(
                f"data.{key}={column!r} is also data.{chosen[column]}: choose another "
                f"one of {', '.join(table.columns)}"
            )
        chosen[column] = key


def header_hint(table: TextColumns) -> str:
    """Returns where columns are named, for a table that may lack a header."""
    is_own = table.name.split("/")[0] in ("labeled_text", "text_pairs")
    return "; the first line of a .tsv file names them" if is_own else ""


def as_table(corpus: Corpus) -> TextColumns:
    """Returns a corpus as a table of its columns.

    A corpus of TFDS, whose examples are shuffled, has a split "validation": its own,
    its "dev", or the last part of the training split.
    """
    parts = {split: split for split in corpus.splits}
    if "validation" not in parts and corpus.name.split("/")[0] not in CORPORA:
        if "dev" in parts:
            parts["validation"] = parts.pop("dev")
        elif "train" in parts:
            parts |= {"train": f"train[:{KEPT}%]", "validation": f"train[{KEPT}%:]"}
    own = {f.name: getattr(corpus, f.name) for f in dataclasses.fields(corpus)}
    info = corpus.builder.info.splits
    own["splits"] = {name: info[part].num_examples for name, part in parts.items()}
    return TextColumns(**own, parts=parts)
