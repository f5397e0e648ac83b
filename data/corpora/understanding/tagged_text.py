"""Tagged sentences of a user's own files, in the columns of CoNLL.

    DIR/train.conll  DIR/valid.conll  DIR/test.conll    or .txt, each plain or .gz

A line holds a token, any other columns, and the token's tag, separated by tabs or by
spaces; an empty line ends a sentence. Lines `# name = value` before the first token are
columns of the sentence, such as its intent. A line `-DOCSTART-` begins a document.
"""

import re
from collections.abc import Iterator, Set
from pathlib import Path

from data.corpora.text_files import read_numbered_lines
from data.corpora.understanding.local_table import LocalTable, Row
from data.understanding.labels import IOB2, mark_entities
from utils.errors import UserError

TOKENS, TAGS, DOCUMENT = "tokens", "tags", "doc"  # names of columns
CONLLEVAL = "conlleval"  # the config that reads ill-formed entities
COMMENT = re.compile(r"# ([^\s/]+) = (.*)")
RESERVED = re.compile(rf"{TOKENS}|{TAGS}|{DOCUMENT}|column_\d+")
NEW_DOCUMENT = "-DOCSTART-"

Block = list[tuple[int, str]]  # lines of a sentence with their numbers


class TaggedText(LocalTable):
    """Sentences of tokens with a tag each, in the order of their files.

    Entities are in IOB2: `B-TYPE` begins one, `I-TYPE` continues it, `O` is outside.
    With the config "conlleval", an `I-TYPE` that continues nothing begins an entity,
    as in the script conlleval, so that IOB1 is read too.

    Attributes:
      AS_CONLLEVAL: whether all configs read entities so.
    """

    SUFFIXES = (".conll", ".txt")
    OPTIONAL = (DOCUMENT,)
    AS_CONLLEVAL = False

    @classmethod
    def expected_files(cls, config):
        return "train.conll, valid.conll (or .txt, plain or .gz)"

    @classmethod
    def check_name(cls, config):
        if config not in ("", CONLLEVAL):
            raise UserError(
                f"{cls.name} has no config {config!r}: choose {cls.name} or "
                f"{cls.name}/{CONLLEVAL}"
            )

    @classmethod
    def read_rows(cls, path, config):
        repair = cls.AS_CONLLEVAL or config == CONLLEVAL
        return read_conll(path, repair=repair)


def read_conll(path: Path, *, repair: bool = False) -> Iterator[Row]:
    """Yields the sentences of a file.

    Args:
      repair: whether an `I-TYPE` that continues no entity begins one.

    Raises:
      UserError: a line has another number of columns than the first, sentences have
        different columns, or the tags are not IOB2.
    """
    width, names, num_documents = 0, None, 0
    is_iob2 = mark_entities(tags_of(path))
    for block in split_blocks(path):
        comments, cells, numbers = {}, [], []
        for number, line in block:
            comment = None if cells or "\t" in line else COMMENT.fullmatch(line)
            if comment:
                add_comment(comments, *comment.groups(), f"{path}, line {number}")
            elif line.startswith(NEW_DOCUMENT):
                num_documents += 1
            else:
                cells.append(split_cells(line))
                numbers.append(number)
        if not cells and not comments:
            continue  # only the beginning of a document
        where = f"{path}, line {block[0][0]}"
        if not cells:
            raise UserError(f"{where}: there is no token after {block[-1][1]!r}")
        width = width or len(cells[0])
        names = comments.keys() if names is None else names
        check_cells(cells, numbers, width, path)
        check_comments(comments.keys(), names, where)
        columns = map(list, zip(*cells, strict=True))
        sentence = dict(zip(column_names(width), columns, strict=True))
        if is_iob2:
            tags = check_iob2(sentence[TAGS], numbers, path, repair=repair)
            sentence[TAGS] = tags
        document = {DOCUMENT: str(num_documents)} if num_documents else {}
        yield sentence | comments | document


def tags_of(path: Path) -> Iterator[str]:
    """Yields the last cell of each line of a file that is no comment."""
    for _, line in read_numbered_lines(path):
        if line.strip() and not COMMENT.fullmatch(line):
            yield split_cells(line)[-1]


def split_blocks(path: Path) -> Iterator[Block]:
    """Yields the lines between empty ones, with their numbers."""
    block: Block = []
    for number, line in read_numbered_lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def split_cells(line: str) -> list[str]:
    """Splits a line at tabs, or at spaces if it has no tab."""
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def column_names(width: int) -> list[str]:
    """Returns the names of columns: the token, those between by number, the tag."""
    return [TOKENS, *(f"column_{n}" for n in range(2, width)), TAGS]


def add_comment(sentence: dict, name: str, value: str, where: str) -> None:
    """Adds a column of the sentence. Raises UserError if the name is not free."""
    if name in sentence:
        raise UserError(f"{where}: the sentence has two lines '# {name} = '")
    if RESERVED.fullmatch(name):
        raise UserError(f"{where}: {name!r} is the name of another column")
    sentence[name] = value


def check_comments(names: Set[str], expected: Set[str], where: str) -> None:
    """Raises UserError unless a sentence has the columns of the first one."""
    for name in sorted(names ^ expected):
        one, other = ("this", "the first")[:: 1 if name in names else -1]
        raise UserError(
            f"{where}: {one} sentence has a line '# {name} = ', and {other} one not"
        )


def check_cells(cells: list[list[str]], numbers, width: int, path: Path) -> None:
    """Raises UserError unless all lines have a token, a tag and `width` columns."""
    for row, number in zip(cells, numbers, strict=True):
        if len(row) != width:
            raise UserError(
                f"{path}, line {number}: the line has {len(row)} columns, and the "
                f"first one has {width}"
            )
        if " " in row[-1]:
            raise UserError(
                f"{path}, line {number}: the tag {row[-1]!r} has a space, and tags are "
                "written with spaces between them"
            )
        if width < 2 or not all(row):
            raise UserError(
                f"{path}, line {number}: {row} lacks a token or a tag, which a tab or "
                "a space must separate"
            )


def check_iob2(tags: list[str], numbers, path: Path, *, repair: bool) -> list[str]:
    """Returns tags in IOB2.

    Raises UserError if a tag is neither `O`, `B-TYPE` nor `I-TYPE`, or, unless
    `repair`, if an `I-TYPE` continues no entity of its type.
    """
    checked: list[str] = []
    for tag, number in zip(tags, numbers, strict=True):
        where = f"{path}, line {number}"
        if not IOB2.fullmatch(tag):
            raise UserError(
                f"{where}: {tag!r} is no tag of IOB2, which are O, B-TYPE and I-TYPE"
            )
        previous = checked[-1] if checked else "the start of the sentence"
        begin = f"B{tag[1:]}"
        if tag[0] == "I" and previous not in (tag, begin):
            if not repair:
                raise UserError(
                    f"{where}: ill-formed IOB2: {tag} comes after {previous}, but an "
                    f"entity begins with {begin}; tagged_text/{CONLLEVAL} reads it as "
                    "one that begins here"
                )
            tag = begin
        checked.append(tag)
    return checked
