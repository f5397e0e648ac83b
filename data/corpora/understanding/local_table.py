"""Base builder of local files whose examples have columns by name.

A column is a text, or a sequence of texts (words, tags). Files are checked as a whole
before anything is stored, so that an error names the file and its line.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from data.corpora import local_files
from data.corpora.local_files import FoundSplit, Layout, PreparedVersions, SplitFiles
from utils.errors import UserError

ROWS = "rows"  # the one column of the files in a layout
Row = dict[str, str | list[str]]


class LocalTable(local_files.LocalText, skip_registration=True):
    """Builder of a table for each split, all with the same columns.

    Attributes:
      kind: kind of the corpus.
      SUFFIXES: endings of a split's file, before ".gz".
      OPTIONAL: columns that a split may lack; they are empty there.
      NO_EXAMPLE: where examples are expected, for the error of a file without any.
    """

    kind = "table"
    SUFFIXES: tuple[str, ...] = ()
    OPTIONAL: tuple[str, ...] = ()
    NO_EXAMPLE = ""

    @classmethod
    def read_rows(cls, path: Path, config: str) -> Iterator[Row]:
        """Yields the examples of a file. Raises UserError if a line is invalid."""
        raise NotImplementedError

    @classmethod
    def find_splits(cls, config, folder):
        return [
            found
            for stem in local_files.STEMS
            for found in cls.find_stem(folder, stem, local_files.STEMS[stem])
        ]

    @classmethod
    def find_stem(cls, folder: Path, stem: str, split: str) -> list[FoundSplit]:
        """Returns the files of a folder with this stem, as files of a split."""
        names = [f"{stem}{suffix}" for suffix in cls.SUFFIXES]
        paths = [local_files.find_file(folder, name) for name in names]
        return [(split, p.name, SplitFiles({ROWS: (p,)})) for p in paths if p]

    @classmethod
    def find_config(cls, config, data_dir, source_dir):
        found = super().find_config(config, data_dir, source_dir)
        versions = PreparedVersions(data_dir / cls.name, config, str(cls.VERSION))
        if found.layout is None or versions.has(found.name):
            return local_files.Config(found.name)  # TFDS knows the columns
        found.columns = cls.find_columns(config, found.layout)
        found.options = config
        return found

    @classmethod
    def find_columns(cls, config: str, layout: Layout) -> dict[str, bool]:
        """Returns whether each column is a sequence, after reading all files.

        Raises UserError if a file is invalid, holds no example, or has other columns
        than the first.
        """
        columns: dict[str, bool] = {}
        first = None
        paths = [path for files in layout.values() for path in files.columns[ROWS]]
        for path in dict.fromkeys(paths):
            found: dict[str, bool] = {}
            for row in cls.read_rows(path, config):
                found |= {name: isinstance(row[name], list) for name in row}
            if not found:
                raise UserError(f"{path} is empty: it holds no example{cls.NO_EXAMPLE}")
            first = first or path
            columns = columns or found
            if (columns.keys() ^ found.keys()).difference(cls.OPTIONAL):
                raise UserError(
                    f"{path} has the columns {', '.join(found)}, and {first} has "
                    f"{', '.join(columns)}: all splits need the same columns"
                )
            columns |= found
        return columns

    def _info(self):
        text = tfds.features.Text()
        features = {
            name: tfds.features.Sequence(text) if is_sequence else text
            for name, is_sequence in getattr(self.builder_config, "columns", {}).items()
        }
        return self.describe(features)

    def _split_generators(self, dl_manager):
        layout = self.builder_config.layout
        return {
            split: self._generate_examples(split, files)
            for split, files in layout.items()
        }

    def _generate_examples(self, split, files):
        config = self.builder_config
        missing = {n: [] if config.columns[n] else "" for n in config.columns}
        paths = files.columns[ROWS]
        rows = (row for path in paths for row in self.read_rows(path, config.options))
        for key, row in enumerate(self.select(split, rows)):
            yield key, missing | row
        self.check_unchanged()

    def select(self, split: str, rows: Iterable[Row]) -> Iterable[Row]:
        """Returns the examples of a split among those of its files."""
        return rows
