"""Label vocabularies: the classes of texts, or the tags of words."""

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np

from data.tokenizers.base import Tokenizer
from utils.errors import UserError

IOB2 = re.compile(r"O|[BI]-.+")  # tags of entities


class Labels(Tokenizer):
    """Names of labels by id, stored in a run directory like a vocabulary.

    Attributes:
      names: the labels, in the order of their ids; () for grades, which are numbers.
      counts: number of occurrences of each label in the training split.
    """

    kind = "labels"

    def __init__(self, names: Iterable[str], counts: Iterable[int]):
        self.names, self.counts = tuple(names), tuple(counts)
        self.vocab_size = len(self.names)
        self.ids = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def learn(
        cls, column: str, examples: Sequence[str], declared: list[str] | None = None
    ) -> "Labels":
        """Learns the labels of a training split, in alphabetical order.

        Args:
          column: name of the column, for errors.
          declared: all labels in the order of a corpus that declares them.

        Raises:
          UserError: there are fewer than two labels, an example has none, or a label
            has a line break.
        """
        counts = collections.Counter(examples)
        if "" in counts:
            raise UserError(
                f"train, example {examples.index('') + 1} has no label in the column "
                f"{column!r}; {counts['']} examples have none"
            )
        check_line_breaks(counts, column)
        names = declared or sorted(counts)
        if len(counts) < 2:
            found = ", ".join(counts) or "none"
            raise UserError(
                f"the column {column!r} has one class in the training split ({found}); "
                "a classifier needs two or more"
            )
        return cls(names, [counts[name] for name in names])

    @classmethod
    def load(cls, content: dict) -> "Labels":
        return cls(content["names"], content["counts"])

    def to_dict(self) -> dict:
        return {"names": list(self.names), "counts": list(self.counts)}

    def numbers(self, examples: Iterable[str]) -> np.ndarray:
        """Returns the id of each label, -1 for one that training lacks."""
        return np.fromiter((self.ids.get(name, -1) for name in examples), np.int32)

    def check_seen(self, examples: Iterable[str], split: str, unseen: str) -> None:
        """Raises UserError for a label that training lacks, if `unseen` is "error"."""
        for number, name in enumerate(examples) if unseen == "error" else ():
            if name not in self.ids:
                raise UserError(
                    f"{split}, example {number + 1}: the training split has no label "
                    f"{name!r}; data.unseen_labels='count' counts such examples as "
                    f"wrong, and known labels are {', '.join(self.names[:12])}"
                )

    def balanced_weights(self) -> np.ndarray:
        """Returns N / (C N_c) for each class c, as scikit-learn's "balanced"."""
        counts = np.maximum(np.asarray(self.counts, np.float32), 1)
        return counts.sum() / (len(counts) * counts)


def check_line_breaks(names: Iterable[str], column: str) -> None:
    """Raises UserError for a label with a line break, since files have one a line."""
    for name in names:
        if "\n" in name or "\r" in name:
            raise UserError(
                f"the label {name!r} in the column {column!r} has a line break, "
                "and each label is written as a line"
            )


def mark_entities(tags: Iterable[str]) -> bool:
    """Returns whether tags are of IOB2, rather than parts of speech."""
    return any(tag.startswith(("B-", "I-")) for tag in tags)


def parse_grades(examples: Iterable[str], column: str, split: str) -> np.ndarray:
    """Returns grades as numbers. Raises UserError for a text that is no number."""
    grades = []
    for number, text in enumerate(examples):
        try:
            grades.append(float(text))
        except ValueError as error:
            raise UserError(
                f"{split}, example {number + 1}: {column}={text!r} is no number, and "
                "head.regression=True needs grades"
            ) from error
    array = np.asarray(grades, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{split}: the column {column!r} must have finite numbers")
    return array
