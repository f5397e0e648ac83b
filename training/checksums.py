"""Checksums of a checkpoint: SHA-256 of each of its files, in a file of its folder."""

import hashlib
import json
from collections.abc import Iterator

from etils import epath

CHECKSUMS = "checksums.json"


def write_checksums(folder: epath.Path) -> None:
    """Writes the SHA-256 of every file below a folder into `CHECKSUMS`."""
    files = checked_files(folder)
    checksums = {str(file.relative_to(folder)): _sha256(file) for file in files}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1))


def find_corruption(folder: epath.Path) -> str | None:
    """Describes how a folder differs from its checksums; None where it does not."""
    try:
        known = json.loads((folder / CHECKSUMS).read_text())
        for name, checksum in known.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if _sha256(folder / name) != checksum:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError):
        return f"{CHECKSUMS} cannot be read"
    return None


def checked_files(folder: epath.Path, *, is_top: bool = True) -> Iterator[epath.Path]:
    """Yields every file in the subfolders of a folder, in a fixed order.

    Files of the top folder itself have no checksum: orbax changes them until the end.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from checked_files(path, is_top=False)
        elif not is_top:
            yield path


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
