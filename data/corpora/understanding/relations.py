"""Published corpora of relations between two marked entities of a sentence.

In the column `sentence`, `<e1>...</e1>` and `<e2>...</e2>` enclose the two entities.
"""

import itertools
from typing import ClassVar

import tensorflow_datasets as tfds

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts
from utils.errors import UserError


class Semeval2010Task8(NamedTexts):
    """SemEval-2010 task 8, English: 9 relations in two directions, and Other.

    No development data are published: every tenth of the 8,000 training sentences is in
    the validation split. The last 800, which others hold out, differ from all before
    and from the test data: 31% of them are Other, against 16%.
    """

    VERSION = tfds.core.Version("1.2.0")  # 1.1.0 held out the last 800

    HOMEPAGE = "https://aclanthology.org/S10-1006"
    LICENSE = "CC BY 3.0"
    CITATION = (
        "Hendrickx et al. (2010), SemEval-2010 Task 8: Multi-Way Classification of "
        "Semantic Relations Between Pairs of Nominals, SemEval"
    )
    STEMS: ClassVar = NamedTexts.STEMS | {VALIDATION: ("train",)}
    COLUMNS = ("label", "sentence")
    SIZES: ClassVar = {TRAIN: 7200, VALIDATION: 800, TEST: 2717}

    def select(self, split, rows):
        if split == TEST:
            return rows
        is_held_out = split == VALIDATION
        return (r for i, r in enumerate(rows) if (i % 10 == 9) is is_held_out)


class FinreZh(NamedTexts):
    """FinRE, Chinese financial news: 43 relations of companies, and unknown.

    The entities are published in columns of their own; their order is the direction.
    """

    HOMEPAGE = "https://github.com/thunlp/Chinese_NRE"
    LICENSE = "MIT (repository)"
    CITATION = (
        "Li et al. (2019), Chinese Relation Extraction with Multi-Grained Information "
        "and External Linguistic Knowledge, ACL"
    )
    COLUMNS = ("label", "entity_1", "entity_2", "sentence")
    SIZES: ClassVar = {TRAIN: 13_486, VALIDATION: 1489, TEST: 3727}

    @classmethod
    def read_rows(cls, path, config):
        for row in super().read_rows(path, config):
            if row.keys() >= set(cls.COLUMNS):
                entities = row["entity_1"], row["entity_2"]
                try:
                    row["sentence"] = mark_entities(row["sentence"], *entities)
                except UserError as error:
                    raise UserError(f"{path}: {error}") from error
            yield row


def mark_entities(sentence: str, first: str, second: str) -> str:
    """Returns a sentence with `<e1>` and `<e2>` around two entities.

    These are their first occurrences, or if those overlap, the first two that do not.
    If all overlap, one lies inside the other, and so do its markers.

    Raises:
      UserError: an entity does not occur, or both only cross each other.
    """
    spans = [
        (start, start + len(first), other, other + len(second))
        for start, other in itertools.product(
            find_all(sentence, first), find_all(sentence, second)
        )
    ]
    apart = [s for s in spans if s[1] <= s[2] or s[3] <= s[0]]
    inside = [s for s in spans if s[0] <= s[2] and s[3] <= s[1]]
    inside += [s for s in spans if s[2] <= s[0] and s[1] <= s[3]]
    if not (chosen := apart or inside):
        raise UserError(
            f"{first!r} and {second!r} do not both occur, one outside or inside the "
            f"other, in {sentence!r}"
        )
    a, b, c, d = min(chosen, key=lambda span: (max(span[0], span[2]), span[0]))
    # At one position, ends come before beginnings, inner ends and outer beginnings
    # before others; of two equal entities, the second is inside.
    marks = [(a, 1, a - b, 0, "<e1>"), (b, 0, -a, 1, "</e1>")]
    marks += [(c, 1, c - d, 1, "<e2>"), (d, 0, -c, 0, "</e2>")]
    marked, end = "", 0
    for position, *_, mark in sorted(marks):
        marked += sentence[end:position] + mark
        end = position
    return marked + sentence[end:]


def find_all(text: str, part: str) -> list[int]:
    """Returns the positions of a part in a text, overlapping ones too."""
    return [i for i in range(len(text)) if part and text.startswith(part, i)]
