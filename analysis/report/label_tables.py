"""Labels and tags of a report: scores by class, confusions, and samples with errors.

`labels.html.jinja` shows them on the page.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

from analysis.report.comparison import (
    NUM_DISPUTED,
    NUM_SAMPLES,
    Comparison,
    group_by_seed,
    take_evenly,
)
from analysis.report.score_cards import ScoreCard

TableRow = dict[str, str]  # text by column title

TASKS = ("classification", "tagging", "relation_extraction")
TABLES = {"classes": "Classes", "entities": "Entities"}  # key of a card: heading
SCORES = {"precision": "precision", "recall": "recall", "f1": "F1"}  # titles
MAX_CLASSES = 60  # rows of a table: of more classes, the most frequent
MAX_FULL_TABLES = 2  # runs whose precision and recall fit beside their F1
MAX_MATRIX = 40  # classes of a matrix: of more, the most confused pairs are listed
MAX_MATRICES = 6  # runs whose confusions are shown
MAX_PAIRS = 15  # of classes that are confused
OUTSIDE = "O"


@dataclasses.dataclass(frozen=True)
class Label:
    """A label, or the tag of a word."""

    name: str
    word: str | None  # None: the label of a whole text
    is_right: bool | None  # None: a grade


@dataclasses.dataclass(frozen=True)
class LabelSample:
    """An example with its labels and those that the runs predict."""

    texts: tuple[str, ...]  # one or a pair; () where `reference` has the words
    reference: tuple[Label, ...]
    outputs: tuple[tuple[Label, ...], ...]  # of each run
    errors: tuple[float, ...]  # of each run: fraction of wrong labels; of a grade, size

    @property
    def disagreement(self) -> float:
        return max(self.errors) - min(self.errors)


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often a run predicts one class for another.

    Attributes:
      run: index of the run.
      names: the classes; () where only pairs are listed.
      counts: examples by class of reference (rows) and prediction.
      pairs: the most confused classes.
    """

    run: int
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    pairs: tuple[TableRow, ...]

    def shares(self) -> list[list[float]]:
        """Returns the counts as fractions of their row."""
        return [[n / (sum(row) or 1) for n in row] for row in self.counts]


@dataclasses.dataclass(frozen=True)
class LabelTables:
    """Tables and samples of runs that predict labels or tags."""

    heading: str
    rows: list[TableRow]  # scores by class
    num_left_out: int  # classes that are rarer than those in `rows`
    confusions: list[Confusion]
    samples: list[LabelSample]

    @classmethod
    def from_comparison(cls, comparison: Comparison) -> "LabelTables | None":
        """Returns the tables of runs of TASKS, None for others."""
        task, cards = comparison.runs[0].config["task"], comparison.cards
        if task not in TASKS:
            return None
        key = next((key for key in TABLES if key in cards[0].content), None)
        is_tagging = task == "tagging"
        title = "entity" if is_tagging else "class"
        rows = class_rows(comparison, key, title) if key else []
        systems = {id(system.runs[0]) for system in group_by_seed(comparison)}
        firsts = [n for n, run in enumerate(comparison.runs) if id(run) in systems]
        shown = [] if is_tagging else firsts[:MAX_MATRICES]
        found = [confusion(n, cards[n]) for n in shown]
        return cls(
            heading=TABLES["entities" if is_tagging else "classes"],
            rows=rows[:MAX_CLASSES],
            num_left_out=max(0, len(rows) - MAX_CLASSES),
            confusions=[one for one in found if one and (one.names or one.pairs)],
            samples=choose_samples(label_samples(cards, is_tagging=is_tagging)),
        )


def class_rows(comparison: Comparison, key: str, title: str) -> list[TableRow]:
    """Formats the scores of each class, those of all runs in one row.

    Args:
      key: the table in a score card.
      title: title of the column of classes.
    """
    labels = [run.label for run in comparison.runs]
    tables = [
        {row["class"]: row for row in card.content.get(key, [])}
        for card in comparison.cards
    ]
    names = list(dict.fromkeys(name for table in tables for name in table))
    supports = {
        name: max(table[name]["support"] for table in tables if name in table)
        for name in names
    }
    if len(names) > MAX_CLASSES:
        names.sort(key=supports.get, reverse=True)
    wanted = SCORES if len(tables) <= MAX_FULL_TABLES else {"f1": "F1"}
    rows = []
    for name in names:
        row = {title: name, "examples": f"{supports[name]:,}"}
        for label, table in zip(labels, tables, strict=True):
            prefix = f"{label}, " if len(tables) > 1 else ""
            scores = table.get(name)
            for score, head in wanted.items():
                row[prefix + head] = f"{scores[score]:.2f}" if scores else ""
        rows.append(row)
    return rows


def confusion(run: int, card: ScoreCard) -> Confusion | None:
    """Returns the confusions of a card; None where it has none."""
    matrix = card.content.get("confusion")
    if matrix and len(matrix["names"]) <= MAX_MATRIX:
        counts = tuple(map(tuple, matrix["counts"]))
        return Confusion(run, tuple(matrix["names"]), counts, ())
    if "classes" not in card.content or not card.samples:
        return None
    sides = ((line["reference"], line["hypothesis"]) for line in card.samples)
    counted = collections.Counter(sides)
    totals = collections.Counter(line["reference"] for line in card.samples)
    wrong = [(pair, n) for pair, n in counted.most_common() if pair[0] != pair[1]]
    pairs = tuple(
        {
            "class": actual,
            "predicted": found,
            "examples": f"{n:,}",
            "of the class": f"{n / totals[actual]:.0%}",
        }
        for (actual, found), n in wrong[:MAX_PAIRS]
    )
    return Confusion(run, (), (), pairs)


def label_samples(cards: Sequence[ScoreCard], *, is_tagging: bool) -> list[LabelSample]:
    """Returns the examples that all cards have, in their order."""
    sides = [
        {(line["source"], line["reference"]): line for line in card.samples}
        for card in cards
    ]
    shared = [key for key in sides[0] if all(key in side for side in sides)]
    if is_tagging:  # a word with a space cannot be found in the line again
        shared = [key for key in shared if len({k.count(" ") for k in key}) == 1]
    is_graded = "pearson" in cards[0].values
    labeled = functools.partial(labeled_sample, is_graded=is_graded)
    make = tagged_sample if is_tagging else labeled
    return [make([side[key] for side in sides]) for key in shared]


def labeled_sample(lines: Sequence[dict], *, is_graded: bool = False) -> LabelSample:
    """Returns a text or a pair with its label, given its line of each run."""
    actual, outputs = lines[0]["reference"], [line["hypothesis"] for line in lines]
    marks: list[bool | None] = [found == actual for found in outputs]
    errors = tuple(float(not mark) for mark in marks)
    if is_graded:  # no grade is right or wrong
        marks = [None] * len(outputs)
        errors = tuple(abs(float(found) - float(actual)) for found in outputs)
    pairs = zip(outputs, marks, strict=True)
    return LabelSample(
        texts=tuple(lines[0]["source"].split("\t")),
        reference=(Label(actual, None, True),),
        outputs=tuple((Label(found, None, mark),) for found, mark in pairs),
        errors=errors,
    )


def tagged_sample(lines: Sequence[dict]) -> LabelSample:
    """Returns a sentence with the tags of its words, given its line of each run.

    The intent follows as the label of the whole text.
    """
    actual = tags_of(lines[0], "reference")
    outputs = []
    for line in lines:
        pairs = zip(tags_of(line, "hypothesis"), actual, strict=True)
        found = [dataclasses.replace(a, is_right=a.name == b.name) for a, b in pairs]
        outputs.append(tuple(found))
    wrong = [[not label.is_right for label in labels] for labels in outputs]
    errors = tuple(sum(marks) / len(marks) for marks in wrong)
    return LabelSample((), actual, tuple(outputs), errors)


def tags_of(line: dict, side: str) -> tuple[Label, ...]:
    """Returns the words of a line with their tags, and its intent if it has one."""
    pairs = zip(line["source"].split(" "), line[side].split(" "), strict=True)
    labels = [Label(tag, word, True) for word, tag in pairs]
    if f"{side}_intent" in line:
        labels.append(Label(line[f"{side}_intent"], None, True))
    return tuple(labels)


def choose_samples(samples: list[LabelSample]) -> list[LabelSample]:
    """Selects samples in their order: disputed ones, then errors, then others."""
    disputed = [sample for sample in samples if sample.disagreement]
    disputed.sort(key=lambda sample: sample.disagreement, reverse=True)
    chosen = disputed[:NUM_DISPUTED]
    agreed = [sample for sample in samples if not sample.disagreement]
    wrong = [sample for sample in agreed if sample.errors[0]]
    right = [sample for sample in agreed if not sample.errors[0]]
    room = NUM_SAMPLES - len(chosen)
    chosen += take_evenly(wrong, max(room - room // 3, room - len(right)))
    chosen += take_evenly(right, NUM_SAMPLES - len(chosen))
    return [sample for sample in samples if sample in chosen]


def format_labels(labels: Sequence[Label]) -> str:
    """Formats labels as text, such as `Paris/B-LOC`; errors are marked with a cross."""
    parts = []
    for label in labels:
        cross = "✗" if label.is_right is False else ""
        is_hidden = label.name == OUTSIDE and label.word is not None and not cross
        tag = "" if is_hidden else label.name
        word = "" if label.word is None else label.word
        parts.append(f"{word}{'/' if word and tag else ''}{cross}{tag}")
    return " ".join(parts)


def sample_rows(tables: LabelTables, runs: Sequence[str]) -> list[TableRow]:
    """Formats the samples as a table, given the labels of the runs."""
    rows = []
    for sample in tables.samples:
        row = {"source": " | ".join(sample.texts)} if sample.texts else {}
        row["reference"] = format_labels(sample.reference)
        outputs = zip(runs, map(format_labels, sample.outputs), strict=True)
        rows.append(row | dict(outputs))
    return rows


def confusion_rows(one: Confusion) -> list[TableRow]:
    """Formats a matrix as a table, or the most confused pairs."""
    if not one.names:
        return list(one.pairs)
    title = "class"
    while title in one.names:
        title = f"({title})"
    return [
        {title: name, **dict(zip(one.names, map(str, counts), strict=True))}
        for name, counts in zip(one.names, one.counts, strict=True)
    ]
