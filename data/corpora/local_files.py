"""The text files of a user's own corpus: which there are, and what is in them."""

import codecs
import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

BLOCK = 2**20  # bytes read at once
ORDER = ("train", "validation", "test")
STEMS = {"valid": "validation", "val": "validation", "dev": "validation"}
STEMS |= {split: split for split in ORDER}


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
      columns: by field, the files it is read from, in order.
      whole: whether an example is a file; else it is a line.
    """

    columns: dict[str, tuple[Path, ...]]
    whole: bool = False


Layout = dict[str, SplitFiles]  # by split


def find_file(folder: Path, name: str) -> Path | None:
    """The text `name` of `folder`, plain or `.gz`, if there is one."""
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {name} and {name}.gz: remove one")
    return found[0] if found else None


def names(folder: Path) -> list[str]:
    """What the files of `folder` are called when unpacked, sorted."""
    return sorted({p.name.removesuffix(".gz") for p in folder.iterdir() if p.is_file()})


def group_splits(found: list[tuple[str, str, SplitFiles]], folder: Path) -> Layout:
    """The splits in their order, from (split, what makes it, files).

    Raises UserError where one is there twice.
    """
    layout, origins = {}, {}
    rank = {split: number for number, split in enumerate(ORDER)}
    for split, origin, files in sorted(found, key=lambda f: (rank.get(f[0], 9), f[0])):
        if split in layout:
            raise UserError(
                f"{folder} holds both {origins[split]} and {origin}, which would both "
                f"be the split {split!r}: remove or rename one"
            )
        layout[split], origins[split] = files, origin
    return layout


def unpack(path: Path):
    """Opens `path` to read the bytes of its text."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def hash_and_count(path: Path) -> tuple[str, int]:
    """A hash of the text, and its number of lines.

    Raises UserError unless the file is whole, in UTF-8 and more than white space.
    """
    digest, breaks, blank, last = hashlib.sha256(), 0, True, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with unpack(path) as file:
            while block := file.read(BLOCK):
                blank &= decoder.decode(block).isspace()
                digest.update(block)
                breaks += block.count(b"\n")
                last = block[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line = breaks + error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged or cut short ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if blank:
        raise UserError(f"{path} is empty: it holds no text")
    return digest.hexdigest(), breaks + (last != b"\n")


def content_key(layout: Layout) -> str:
    """Twelve hexadecimal digits that depend on all texts and their order.

    Raises UserError for a file that cannot be used or is out of step with the others.
    """
    parts = []
    for split, files in layout.items():
        found = {
            field: [hash_and_count(path) for path in paths]
            for field, paths in files.columns.items()
        }
        if not files.whole:
            check_step(files, {field: rows[0][1] for field, rows in found.items()})
        digests = {field: [row[0] for row in rows] for field, rows in found.items()}
        parts.append([split, files.whole, digests])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def check_step(files: SplitFiles, lines: dict[str, int]) -> None:
    """Raises UserError unless all columns have as many lines as the first."""
    first, *others = lines
    for field in others:
        if lines[field] != lines[first]:
            one, other = files.columns[first][0].name, files.columns[field][0].name
            raise UserError(
                f"{one} has {lines[first]} lines and {other} has {lines[field]}: "
                "line n of one has to belong to line n of the other"
            )


def fingerprint(layout: Layout) -> list[list]:
    """Name, size and times of every file: they change when a file does."""
    columns = [paths for files in layout.values() for paths in files.columns.values()]
    stats = [(str(path), path.stat()) for paths in columns for path in paths]
    return [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]


def read_folder(folder: Path) -> SplitFiles:
    """Every text of `folder` as one document. Raises UserError if there is none."""
    texts = [find_file(folder, name) for name in names(folder) if name.endswith(".txt")]
    if not texts:
        raise UserError(f"{folder} is empty: it holds no .txt or .txt.gz file")
    return SplitFiles({"text": tuple(texts)}, whole=True)
