"""Text that users hand in, in files and standard input: UTF-8, one item a line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.errors import UserError


def decode(name: str, text: bytes, line: int = 1) -> str:
    """Decodes text that starts in line number `line`; UserError if it is no UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise UserError(
            f"{name} is not UTF-8 in line {line} ({error.reason}): give a copy in UTF-8"
        ) from error


def decode_lines(name: str, lines: Iterable[bytes]) -> Iterator[str]:
    r"""Yields decoded lines without "\n", "\r\n" or a byte order mark.

    Raises:
      UserError: a line is not UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        text = decode(name, line, number)
        if number == 1:
            text = text.removeprefix("\ufeff")
        yield text.removesuffix("\n").removesuffix("\r")


def read_lines(flag: str, path: str | Path) -> list[str]:
    """Reads the lines of a file that a flag names, without empty ones at its end.

    Raises:
      UserError: it cannot be read, is not UTF-8, or holds no text.
    """
    name = f"{flag}={path}"
    try:
        with Path(path).expanduser().open("rb") as file:
            lines = list(decode_lines(name, file))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not any(map(str.strip, lines)):
        raise UserError(f"{name} is empty: it holds no text")
    return lines
