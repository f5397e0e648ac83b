"""Base of published corpora that are read from local files, in one format for all.

Tables are TSV files with a header, tagged sentences files in the columns of CoNLL; see
`labeled_text.py` and `tagged_text.py`. Nothing is downloaded: several of the published
files may not be redistributed, and each has another format.
"""

import itertools
from typing import ClassVar

from data.corpora.local_files import SplitFiles
from data.corpora.understanding.labeled_text import LabeledText
from data.corpora.understanding.local_table import ROWS, LocalTable
from data.corpora.understanding.tagged_text import TaggedText
from utils.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
Stems = dict[str, tuple[str, ...]]  # names of the files of each split, without suffix


class NamedTable(LocalTable, skip_registration=True):
    """Base builder of a published corpus.

    Attributes:
      STEMS: files of each split; the development data are the split "validation".
      CONFIGS: other files of some splits, by config.
      COLUMNS: columns that every file has.
      HELD_OUT: number of last training examples that are the validation split, where
        no development data are published.
      SIZES: published number of examples by split.
    """

    SUFFIXES: ClassVar = (".tsv",)
    STEMS: ClassVar[Stems] = {
        TRAIN: ("train",),
        VALIDATION: ("dev",),
        TEST: ("test",),
    }
    CONFIGS: ClassVar[dict[str, Stems]] = {}
    COLUMNS: ClassVar[tuple[str, ...]] = ()
    HELD_OUT = 0
    SIZES: ClassVar[dict[str, int]] = {}

    @classmethod
    def stems(cls, config: str) -> Stems:
        """Returns the files of each split with this config."""
        return cls.STEMS | cls.CONFIGS.get(config, {})

    @classmethod
    def expected_files(cls, config):
        stems = itertools.chain.from_iterable(cls.stems(config).values())
        names = [f"{stem}{cls.SUFFIXES[0]}" for stem in dict.fromkeys(stems)]
        return f"{', '.join(names)} (plain or .gz)"

    @classmethod
    def check_name(cls, config):
        if config not in ("", *cls.CONFIGS):
            names = [cls.name, *(f"{cls.name}/{name}" for name in cls.CONFIGS)]
            raise UserError(
                f"{cls.name} has no config {config!r}: choose {' or '.join(names)}"
            )

    @classmethod
    def find_splits(cls, config, folder):
        splits = []
        for split, stems in cls.stems(config).items():
            found = [cls.find_stem(folder, stem, split) for stem in stems]
            if not all(found):
                lacking = stems[found.index([])]
                raise UserError(
                    f"{folder} lacks {lacking}{cls.SUFFIXES[0]}: {cls.name} is read "
                    f"from {cls.expected_files(config)}"
                )
            paths = tuple(
                path for [(_, _, files)] in found for path in files.columns[ROWS]
            )
            splits.append((split, paths[0].name, SplitFiles({ROWS: paths})))
        return splits

    @classmethod
    def find_columns(cls, config, layout):
        columns = super().find_columns(config, layout)
        if missing := [name for name in cls.COLUMNS if name not in columns]:
            path = layout[TRAIN].columns[ROWS][0]
            raise UserError(
                f"{path} lacks the column {missing[0]}; {cls.name} has "
                f"{', '.join(cls.COLUMNS)}"
            )
        return columns

    def select(self, split, rows):
        if not self.HELD_OUT or split == TEST:
            return rows
        rows = list(rows)
        if len(rows) <= self.HELD_OUT:
            raise UserError(
                f"{self.name} has {len(rows)} training examples, of which the last "
                f"{self.HELD_OUT} are for validation: give the whole file"
            )
        return rows[-self.HELD_OUT :] if split == VALIDATION else rows[: -self.HELD_OUT]


class NamedTexts(NamedTable, LabeledText, skip_registration=True):
    """Base builder of a published corpus of labelled texts, in TSV files."""


class NamedSentences(NamedTable, TaggedText, skip_registration=True):
    """Base builder of a published corpus of tagged sentences, in files of columns."""

    SUFFIXES = (".conll",)
    COLUMNS = ("tokens", "tags")
