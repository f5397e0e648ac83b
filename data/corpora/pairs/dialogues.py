"""Published corpora of dialogues, as pairs of a history and the next response."""

import itertools
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from data.corpora.local_files import SplitFiles, find_file
from data.corpora.text_files import read_numbered_lines
from data.corpora.understanding.local_table import Row
from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts
from utils.errors import UserError

USER, BOT, FACT = "<user>", "<bot>", "<kb>"  # begin the lines of a history
LINES = ("dialog", "line", "kind", "user", "bot")  # columns of the published lines
KNOWLEDGE = "kb"  # the config with facts, and the stem of the file of entities


class Dstc2(NamedTexts):
    """DSTC2 as task 6 of the dialog bAbI tasks: English dialogues about restaurants.

    `history` holds all lines of a dialogue before a response (`bot`), with `<user>` or
    `<bot>` before each; `<SILENCE>` stands for a missing line of the user. With the
    config "kb", the facts that calls of the knowledge base returned follow, with `<kb>`
    before each and those of the last call first, so that a source that is cut loses
    the oldest ones.

    `dialog` and `line` are the numbers of the dialogue and of the line, and `entities`
    the words of the response that `kb.txt` knows as names or values.
    """

    HOMEPAGE = "https://github.com/HLTCHKUST/Mem2Seq"
    LICENSE = "CC BY 3.0"
    CITATION = (
        "Henderson, Thomson and Williams (2014), The Second Dialog State Tracking "
        "Challenge, SIGDIAL; Bordes, Boureau and Weston (2017), Learning End-to-End "
        "Goal-Oriented Dialog, ICLR"
    )
    CONFIGS: ClassVar = {KNOWLEDGE: {}}
    COLUMNS = ("dialog", "line", "history", "bot", "entities")
    SIZES: ClassVar = {TRAIN: 14_404, VALIDATION: 4159, TEST: 11_237}
    language = "en"

    @classmethod
    def expected_files(cls, config):
        return f"{KNOWLEDGE}.txt, {super().expected_files(config)}"

    @classmethod
    def find_splits(cls, config, folder):
        entities = find_file(folder, f"{KNOWLEDGE}.txt")
        if entities is None:
            raise UserError(
                f"{folder} lacks {KNOWLEDGE}.txt: {cls.name} is read from "
                f"{cls.expected_files(config)}"
            )
        return [  # as whole files, since their lines do not belong together
            (split, name, SplitFiles(f.columns | {KNOWLEDGE: (entities,)}, whole=True))
            for split, name, f in super().find_splits(config, folder)
        ]

    @classmethod
    def read_rows(cls, path, config):
        entities = read_entities(find_file(path.parent, f"{KNOWLEDGE}.txt"))
        lines = check_lines(super().read_rows(path, config), path)
        return read_responses(lines, entities, has_facts=config == KNOWLEDGE)


def read_entities(path: Path) -> set[str]:
    """Returns the names and values in facts of three words, such as `x R_price cheap`.

    Raises UserError if a line has another number of words.
    """
    entities: set[str] = set()
    for number, line in read_numbered_lines(path):
        words = line.split()
        if len(words) != 3:
            raise UserError(
                f"{path}, line {number}: {line!r} has {len(words)} words, and a fact "
                "has three, a name, a relation and a value"
            )
        entities |= {words[0], words[2]}
    return entities


def check_lines(rows: Iterable[Row], path: Path) -> Iterator[Row]:
    """Yields the lines of dialogues. Raises UserError for a wrong column or kind."""
    for row in rows:
        if missing := [name for name in LINES if name not in row]:
            raise UserError(
                f"{path} lacks the column {missing[0]}; the lines of dialogues have "
                f"{', '.join(LINES)}"
            )
        if row["kind"] not in ("turn", "kb"):
            raise UserError(
                f"{path}: line {row['line']} of dialogue {row['dialog']} is of kind "
                f"{row['kind']!r}; choose turn or kb"
            )
        yield row


def read_responses(
    lines: Iterable[Row], entities: set[str], *, has_facts: bool
) -> Iterator[Row]:
    """Yields an example for each turn of dialogues whose lines follow in order.

    Args:
      entities: words that are entities of a response.
      has_facts: whether facts follow the turns of a history.
    """
    for dialog, group in itertools.groupby(lines, key=operator.itemgetter("dialog")):
        turns: list[str] = []
        facts: list[str] = []
        for kind, block in itertools.groupby(group, key=operator.itemgetter("kind")):
            if kind == "kb":  # the results of one call, before those of earlier ones
                facts = [*(f"{FACT} {line['user']}" for line in block), *facts]
                continue
            for line in block:
                turns.append(f"{USER} {line['user']}".rstrip())
                words = line["bot"].split()
                yield {
                    "dialog": dialog,
                    "line": line["line"],
                    "history": " ".join(turns + facts if has_facts else turns),
                    "bot": line["bot"],
                    "entities": " ".join(word for word in words if word in entities),
                }
                turns.append(f"{BOT} {line['bot']}")
