"""English novels of 1839-1929, split by book: an example a book."""

from collections.abc import Iterator
from pathlib import Path

from data.corpora.local_files import STEMS, Layout, group_splits, read_folder
from data.corpora.own_files import OwnText
from utils.errors import UserError


class Novels(OwnText):
    """Books in the order of their files' names, white space flattened.

    Lines are broken differently in different books; what is left is one space between
    two words.
    """

    @classmethod
    def wanted(cls, config: str) -> str:
        """What a folder has to hold, for messages."""
        return "folders train, valid and test of .txt or .txt.gz files, a book each"

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """The books of `folder`. Raises UserError where there are none to train on."""
        found = [
            (split, f"{stem}/", read_folder(folder / stem))
            for stem, split in STEMS.items()
            if (folder / stem).is_dir()
        ]
        if "train" not in [split for split, *_ in found]:
            raise UserError(f"{folder} lacks train: give {cls.wanted(config)}")
        return group_splits(found, folder)

    def read(self, paths: tuple[Path, ...], whole: bool) -> Iterator[str]:
        """The books as one line each."""
        return (" ".join(text.split()) for text in super().read(paths, whole))
