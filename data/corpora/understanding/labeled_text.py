"""Labelled texts of a user's own files: tables, or an object of JSON on each line.

    DIR/train.tsv  DIR/valid.tsv  DIR/test.tsv      or .jsonl, each plain or .gz

The first line of a table names its columns; columns are separated by tabs, without
quotation marks. An object has the columns as its keys. Empty lines are left out.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from data.corpora.text_files import read_numbered_lines
from data.corpora.understanding.local_table import LocalTable, Row
from utils.errors import UserError

LONGEST_NAME = 40  # characters of a column's name; more is a text, not a name
CONSTANTS = {None: "", True: "true", False: "false"}


class LabeledText(LocalTable):
    """Texts with labels and any other columns, in the order of their files."""

    SUFFIXES = (".tsv", ".jsonl")
    NO_EXAMPLE = " (the first line of a .tsv file names the columns)"

    @classmethod
    def expected_files(cls, config):
        return "train.tsv, valid.tsv (or .jsonl, plain or .gz)"

    @classmethod
    def read_rows(cls, path, config):
        is_json = path.name.removesuffix(".gz").endswith(".jsonl")
        return read_json_lines(path) if is_json else read_tsv(path)


def read_tsv(path: Path) -> Iterator[Row]:
    """Yields the rows of a table with a header, without empty lines.

    Raises UserError if there is no header or a row has another number of columns.
    """
    lines = ((n, line) for n, line in read_numbered_lines(path) if line)
    for number, line in itertools.islice(lines, 1):
        header = line.split("\t")
        check_header(header, f"{path}, line {number}")
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {number}: the row has {len(cells)} columns, and the "
                f"header has {len(header)}"
            )
        yield dict(zip(header, cells, strict=True))


def check_header(header: list[str], where: str) -> None:
    """Raises UserError unless a line names two or more different columns."""
    rule = "the first line must name the columns, with a tab between two names"
    if len(header) < 2:
        raise UserError(f"{where}: no header, since it has no tab: {rule}")
    for name in header:
        if not is_name(name):
            raise UserError(f"{where}: no header, since {name!r} is no name: {rule}")
    if repeated := [name for name in header if header.count(name) > 1]:
        raise UserError(f"{where}: the column {repeated[0]!r} is named twice")


def is_name(name: str) -> bool:
    """Returns whether a text may be a column's name: short, without "/", no number."""
    try:
        float(name)
    except ValueError:
        return bool(name.strip()) and "/" not in name and len(name) <= LONGEST_NAME
    return False


def read_json_lines(path: Path) -> Iterator[Row]:
    """Yields the objects of a file as rows, with numbers as they are written.

    Raises UserError if a line is no object or has other keys than the first one.
    """
    columns: list[str] = []
    for number, line in read_numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse_object(line, where)
        columns = columns or list(row)
        if row.keys() != set(columns):
            raise UserError(
                f"{where}: the object has the columns {', '.join(row)}, and the first "
                f"one has {', '.join(columns)}"
            )
        yield {name: row[name] for name in columns}


def parse_object(line: str, where: str) -> Row:
    """Returns the texts of a JSON object by key.

    Raises UserError if it is no object, or a value is neither text nor number.
    """
    try:
        row = json.loads(
            line, object_pairs_hook=unique_keys, parse_int=str, parse_float=str
        )
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)  # without a position in this line
        raise UserError(f"{where}: no object of JSON ({reason})") from error
    if not isinstance(row, dict) or not row:
        raise UserError(f'{where}: no object of JSON, such as {{"text": "..."}}')
    for name, value in row.items():
        if not is_name(name):
            raise UserError(f"{where}: the key {name!r} is no name of a column")
        if isinstance(value, list | dict):
            raise UserError(
                f"{where}: the value of {name!r} is neither text nor number"
            )
        row[name] = CONSTANTS[value] if value in CONSTANTS else str(value)
        if not is_unicode(row[name]):
            raise UserError(f"{where}: the text of {name!r} has a lone surrogate")
    return row


def unique_keys(pairs: list[tuple]) -> dict:
    """Returns an object of JSON. Raises ValueError if a key occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return row


def is_unicode(text: str) -> bool:
    """Returns whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
