"""Texts and sentence pairs in files of any size, read in bounded memory."""

import bz2
import contextlib
import errno
import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import unescape

from utils.errors import UserError
from utils.text_files import decode, decode_lines

OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open}
DAMAGED = (EOFError, OSError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
MARKUP = (".sgm", ".xml")
SEGMENT = re.compile(r'<seg id="?\d+"?>(.*?)</seg>', re.IGNORECASE)
QUOTES = {"&quot;": '"', "&apos;": "'"}


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a plain or packed file to read its content; a `.tgz` gives a tar file."""
    return OPENERS.get(path.suffix, open)(path, "rb")


@contextlib.contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turns errors of reading `path` into UserErrors, except for a full disk."""
    try:
        yield
    except DAMAGED as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        message = f"{path} is damaged or cut short ({error}): fetch it again"
        raise UserError(message) from error


def read_bytes(path: Path) -> bytes:
    """Reads a whole plain or packed file; UserError if it is damaged or blank."""
    with explain_damage(path), open_unpacked(path) as file:
        content = file.read()
    if not content.strip():
        raise UserError(f"{path} is empty: fetch it again")
    return content


def read_text(path: Path) -> str:
    """Reads a whole text; UserError if it is damaged, blank or not UTF-8."""
    return decode(str(path), read_bytes(path))


def split_lines(text: str) -> list[str]:
    r"""Splits a text at "\n" only, since some texts contain other line separators."""
    return text.removesuffix("\n").split("\n")


def read_lines(path: Path) -> Iterator[str]:
    r"""Yields the lines of a text, split at "\n" only.

    Raises UserError if the file is damaged, empty or not UTF-8.
    """
    number = 0
    with explain_damage(path), open_unpacked(path) as file:
        for number, line in enumerate(file, 1):
            yield decode(str(path), line, number).removesuffix("\n")
    if not number:
        raise UserError(f"{path} is empty: fetch it again")


def read_numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yields (number, line) of a text, without a BOM and "\n" or "\r\n" at ends."""
    with explain_damage(path), open_unpacked(path) as file:
        yield from enumerate(decode_lines(str(path), file), 1)


def read_segments(path: Path) -> Iterator[str]:
    """Yields the sentences of a test set in NIST's mark-up, as plain text.

    These files are neither valid XML nor SGML, so no parser is used. Raises UserError
    as `read_lines`, or if there is no sentence.
    """
    is_empty = True
    for line in read_lines(path):
        for segment in SEGMENT.findall(line):
            is_empty = False
            yield unescape(segment, QUOTES).strip()
    if is_empty:
        raise UserError(f'{path} is empty: it has no <seg id="...">')


def read_sentences(path: Path) -> Iterator[str]:
    """Yields stripped lines or segments, depending on the file's name."""
    has_markup = path.name.removesuffix(".gz").endswith(MARKUP)
    return read_segments(path) if has_markup else map(str.strip, read_lines(path))


def pair_lines(
    first: Iterable[str], second: Iterable[str], names: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    """Yields line n of both files, of which errors give the `names`.

    Raises UserError after the last pair if one file has more lines than the other.
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
                "line n of one must translate line n of the other"
            )
        yield lines


def read_pairs(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """Yields the sentence pairs of two files; see `pair_lines`."""
    names = first.name, second.name
    return pair_lines(read_sentences(first), read_sentences(second), names)


def drop_empty_pairs(
    pairs: Iterable[tuple[str, str]], split: str
) -> Iterator[tuple[str, str]]:
    """Yields the pairs without an empty side. Raises UserError if there is none."""
    is_empty = True
    for lines in pairs:
        if all(lines):
            is_empty = False
            yield lines
    if is_empty:
        raise UserError(f"the split {split} is empty: its files hold no sentence pair")
