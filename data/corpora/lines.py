"""Files of any size as lines and as pairs of lines, in bounded memory."""

import bz2
import contextlib
import errno
import gzip
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import unescape

from data.corpora.remote_files import DAMAGED, decode
from utils.errors import UserError

OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open}
MARKUP = (".sgm", ".xml")
SEGMENT = re.compile(r'<seg id="?\d+"?>(.*?)</seg>', re.IGNORECASE)
QUOTES = {"&quot;": '"', "&apos;": "'"}


def open_packed(path: Path) -> BinaryIO:
    """The file as it is."""
    return open(path, "rb")


def open_unpacked(path: Path) -> BinaryIO:
    """What a plain or packed file holds; of a `.tgz` that is a tar file."""
    return OPENERS.get(path.suffix, open)(path, "rb")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises UserError where reading `path` within fails, but not for a full disk."""
    try:
        yield
    except DAMAGED as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise UserError(
            f"{path} is damaged or cut short ({error}): fetch it again"
        ) from error


def read_lines(path: Path) -> Iterator[str]:
    r"""The lines of a text, cut at "\n" alone: some hold other line separators.

    Raises UserError where the file is damaged, empty or not UTF-8.
    """
    number = 0
    with readable(path), open_unpacked(path) as file:
        for number, line in enumerate(file, 1):
            yield decode(str(path), line, number).removesuffix("\n")
    if not number:
        raise UserError(f"{path} is empty: fetch it again")


def read_segments(path: Path) -> Iterator[str]:
    """The sentences of a test set in NIST's mark-up, as plain text.

    No parser of XML or SGML is used: these files keep to neither.

    Raises UserError as `read_lines`, and where there is no sentence.
    """
    is_empty = True
    for line in read_lines(path):
        for segment in SEGMENT.findall(line):
            is_empty = False
            yield unescape(segment, QUOTES).strip()
    if is_empty:
        raise UserError(f'{path} is empty: it has no <seg id="...">')


def read_sentences(path: Path) -> Iterator[str]:
    """One of the two, as the name says, without white space around."""
    marked = path.name.removesuffix(".gz").endswith(MARKUP)
    return read_segments(path) if marked else map(str.strip, read_lines(path))


def pair(
    first: Iterable[str], second: Iterable[str], names: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    """Line n of both. Raises UserError, in the end, where one has more than the other.

    Args:
      names: of the two files.
    """
    sides = iter(first), iter(second)
    for number, lines in enumerate(zip_longest(*sides)):
        if None in lines:
            counts = [number + (line is not None) for line in lines]
            first, second = (
                count + sum(1 for _ in side)
                for count, side in zip(counts, sides, strict=True)
            )
            raise UserError(
                f"{names[0]} has {first} lines and {names[1]} has {second}: "
                "line n of one has to translate line n of the other"
            )
        yield lines


def read_pairs(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """The sentences of two files, line by line; see `pair`."""
    names = first.name, second.name
    return pair(read_sentences(first), read_sentences(second), names)


def drop_empty_pairs(
    pairs: Iterable[tuple[str, str]], split: str
) -> Iterator[tuple[str, str]]:
    """The pairs of which no side is empty. Raises UserError if there is none."""
    is_empty = True
    for lines in pairs:
        if all(lines):
            is_empty = False
            yield lines
    if is_empty:
        raise UserError(f"the split {split} is empty: its files hold no sentence pair")
