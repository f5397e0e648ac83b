"""A user's own text: `train.txt`, `valid.txt` and so on, or a folder a split."""

from pathlib import Path

from data.corpora.local_files import (
    STEMS,
    Layout,
    SplitFiles,
    group_splits,
    read_folder,
    find_file,
)
from data.corpora.own_files import OwnText
from utils.errors import UserError


class PlainText(OwnText):
    """A text a split, an example a line; or a folder a split, an example a file."""

    @classmethod
    def wanted(cls, config: str) -> str:
        """What a folder has to hold, for messages."""
        return "train.txt, valid.txt (plain or .gz), or folders train, valid of .txt"

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """The files of `folder`. Raises UserError where one is missing."""
        found = []
        for stem, split in STEMS.items():
            if path := find_file(folder, f"{stem}.txt"):
                found.append((split, path.name, SplitFiles({"text": (path,)})))
            if (folder / stem).is_dir():
                found.append((split, f"{stem}/", read_folder(folder / stem)))
        if "train" not in [split for split, *_ in found]:
            raise UserError(f"{folder} lacks train.txt: give {cls.wanted(config)}")
        return group_splits(found, folder)
