"""What proves that the files of a folder are as they were written.

The storage layer notices much find_corruption, but not all: a flipped bit in an array's
bytes comes back as another number. So a checkpoint holds the SHA-256 of each of
its files, written before the checkpoint counts as whole.
"""

import hashlib
import json
from collections.abc import Iterator

from etils import epath

NAME = "checksums.json"


def write_checksums(folder: epath.Path) -> None:
    """Notes the digest of every file below a folder."""
    found = {str(path.relative_to(folder)): digest(path) for path in files(folder)}
    (folder / NAME).write_text(json.dumps(found, indent=1))


def files(folder: epath.Path) -> Iterator[epath.Path]:
    """Every file of a folder's folders, in a fixed order.

    Not those of the folder itself: orbax writes times into them to the last.
    """
    for part in sorted(folder.iterdir()):
        if part.is_dir():
            yield from _below(part)


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def find_corruption(folder: epath.Path) -> str | None:
    """What is wrong with a folder, in a few words; None if nothing is."""
    try:
        known = json.loads((folder / NAME).read_text())
        for name, expected in known.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if digest(folder / name) != expected:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError):
        return f"{NAME} cannot be read"
    return None


def digest(path: epath.Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
