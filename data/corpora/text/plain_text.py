"""A user's own text: `train.txt`, `valid.txt` and so on, or a folder for each split."""

from collections.abc import Iterator
from pathlib import Path

from data.corpora.local_files import (
    STEMS,
    Layout,
    LocalText,
    SplitFiles,
    find_documents,
    find_file,
    group_splits,
)
from utils.errors import UserError


class PlainText(LocalText):
    """A file for each split with an example on each line, or a folder of documents."""

    @classmethod
    def expected_files(cls, config: str) -> str:
        """Returns the files that a folder must hold, for error messages."""
        return "train.txt, valid.txt (plain or .gz), or folders train, valid of .txt"

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """Returns the files of a folder. Raises UserError if one is missing."""
        splits = []
        for stem, split in STEMS.items():
            if path := find_file(folder, f"{stem}.txt"):
                splits.append((split, path.name, SplitFiles({"text": (path,)})))
        splits += find_document_folders(folder)
        if "train" not in [split for split, *_ in splits]:
            raise UserError(f"{folder} lacks train.txt: give {cls.expected_files('')}")
        return group_splits(splits, folder)


class Novels(LocalText):
    """English novels of 1839-1929, split by book, in the order of their file names.

    Books break lines differently, so all white space becomes single spaces.
    """

    @classmethod
    def expected_files(cls, config: str) -> str:
        """Returns the files that a folder must hold, for error messages."""
        return "folders train, valid and test of .txt or .txt.gz files, a book each"

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """Returns the books of a folder. Raises UserError without training books."""
        splits = find_document_folders(folder)
        if "train" not in [split for split, *_ in splits]:
            raise UserError(f"{folder} lacks train: give {cls.expected_files('')}")
        return group_splits(splits, folder)

    def read(self, paths: tuple[Path, ...], whole: bool) -> Iterator[str]:
        """Yields each book as one line."""
        return (" ".join(text.split()) for text in super().read(paths, whole))


def find_document_folders(folder: Path) -> list[tuple[str, str, SplitFiles]]:
    """Returns (split, name, files) of each folder of documents, for `group_splits`."""
    return [
        (split, f"{stem}/", find_documents(folder / stem))
        for stem, split in STEMS.items()
        if (folder / stem).is_dir()
    ]
