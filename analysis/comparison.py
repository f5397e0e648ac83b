"""What several runs have in common and what tells them apart, as tables of text."""

import dataclasses
import json
import math
from collections.abc import Callable, Hashable, Sequence

from analysis.runs import Run, Scored
from errors import UserError
from training.run_directory import PLACES, flattened

SCORES = {  # by name: title and digits after the point
    "bleu": ("BLEU", 1),
    "chrf": ("chrF", 1),
    "exact_match": ("exact match, %", 1),
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "word_perplexity": ("word perplexity", 2),
    "bits_per_character": ("bits/character", 3),
    "bits_per_byte": ("bits/byte", 3),
}
INTERVAL = "95% interval"  # of BLEU
FLOORS = {"copy": "copy the source", "nearest_neighbour": "nearest neighbour"}
SAMPLES = 12
DISAGREEING = 8  # of the samples, at most, are chosen since the runs disagree

# Of a score card's protocol, what is no choice of how to score.
NOT_COMPARED = ("checkpoint", "commit", "data", "vocabulary")


@dataclasses.dataclass(frozen=True)
class Row:
    """Attributes: run: its number, None for a floor. cells: text by title."""

    label: str
    run: int | None
    cells: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sentence and what each run made of it."""

    source: str
    reference: str
    hypotheses: tuple[str, ...]

    def is_exact(self, hypothesis: str) -> bool:
        """Whether a hypothesis is the reference."""
        return hypothesis.strip() == self.reference.strip()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs of one task, all scored on one split."""

    runs: tuple[Run, ...]
    split: str

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Comparison":
        """Of the test split, or else of the validation split.

        Raises UserError for runs of different tasks, or scored on different splits.
        """
        tasks = groups(runs, lambda run: run.config["task"])
        if len(tasks) > 1:
            raise UserError(f"runs of different tasks do not compare: {told(tasks)}")
        splits = groups(runs, preferred_split)
        if len(splits) > 1:
            raise UserError(
                f"runs scored on different splits do not compare: {told(splits)}. "
                "Run eval.py --split=test on each"
            )
        return cls(tuple(runs), next(iter(splits)))

    @property
    def task(self) -> str:
        """The task that all runs learn."""
        return self.runs[0].config["task"]

    @property
    def scored(self) -> tuple[Scored, ...]:
        """What each run made of the split."""
        return tuple(run.scored[self.split] for run in self.runs)

    @property
    def title(self) -> str:
        """The task, and what of."""
        corpora = groups(self.runs, lambda run: run.config["data"]["name"])
        return f"{self.task.replace('_', ' ')}: {', '.join(corpora)}, {self.split}"

    @property
    def warnings(self) -> list[str]:
        """Why some of the numbers do not compare."""
        found = []
        data = groups(self.runs, self._data)
        if len(data) > 1:
            found.append(
                f"different data ({told(data)}): texts or tokens of these runs are "
                "not the same, so their scores do not compare"
            )
        devices = groups(self.runs, device)
        if len(devices) > 1:
            found.append(
                f"different devices ({told(devices)}): "
                "tokens/s and training time do not compare"
            )
        return found

    def _data(self, run: Run) -> str:
        return run.scored[self.split].card.get("protocol", {}).get("data", "unknown")

    def rows(self) -> list[Row]:
        """The runs, then what needs no learning; columns that some row fills."""
        found = [self._row(number) for number in range(len(self.runs))]
        found += self._floors()
        scores = {title for title, _ in SCORES.values()} | {INTERVAL}
        titles = [title for row in found for title in row.cells]
        first = [title for title in _score_titles() if title in titles]
        rest = [title for title in dict.fromkeys(titles) if title not in scores]
        return [
            dataclasses.replace(
                row, cells={title: row.cells.get(title, "") for title in first + rest}
            )
            for row in found
        ]

    def _row(self, number: int) -> Row:
        run, card = self.runs[number], self.scored[number].card
        values = {name: score["value"] for name, score in card["scores"].items()}
        cells = score_cells(values)
        bleu = card["scores"].get("bleu", {})
        if "low" in bleu:
            cells[INTERVAL] = f"{bleu['low']:.1f} to {bleu['high']:.1f}"
        cells |= {
            "parameters": _told(run.about.get("parameters"), "{:,}".format),
            "tokens/s": _told(run.tokens_per_second, "{:,.0f}".format),
            "training time": _told(run.seconds, duration),
            "steps": _told(run.steps, "{:,}".format),
            "scored step": f"{card['step']:,}",
        }
        return Row(run.label, number, {k: v for k, v in cells.items() if v})

    def _floors(self) -> list[Row]:
        """A floor that is not the same for all runs says whose it is."""
        names = [n for scored in self.scored for n in scored.card.get("floors", {})]
        found = []
        for name in sorted(dict.fromkeys(names), key=["unigram"].count):
            kinds = groups(self.runs, lambda run, name=name: self._floor(run, name))
            for values, labels in kinds.items():
                label = FLOORS.get(name, name.replace("_", " "))
                if len(kinds) > 1:
                    label += f" ({', '.join(labels)})"
                if values:
                    found.append(Row(label, None, score_cells(dict(values))))
        return found

    def _floor(self, run: Run, name: str) -> tuple[tuple[str, float], ...]:
        floors = run.scored[self.split].card.get("floors", {})
        return tuple(sorted(floors.get(name, {}).items()))

    def differences(self) -> list[tuple[str, list[str]]]:
        """Keys of config and protocol that differ, each with every run's value."""
        settings = [
            flattened(run.config)
            | flattened(
                {k: v for k, v in protocol.items() if k not in NOT_COMPARED}, "scored: "
            )
            for run, protocol in zip(self.runs, self._protocols(), strict=True)
        ]
        keys = dict.fromkeys(key for values in settings for key in values)
        table = [
            (key, [_shown(values, key) for values in settings])
            for key in keys
            if key not in PLACES
        ]
        return [(key, values) for key, values in table if len(set(values)) > 1]

    def _protocols(self) -> list[dict]:
        return [scored.card.get("protocol", {}) for scored in self.scored]

    def samples(self) -> list[Sample]:
        """Some sentences that all runs translated, most of them in dispute."""
        hypotheses = [
            {
                (line["source"], line["reference"]): line["hypothesis"]
                for line in scored.samples
                if {"source", "reference", "hypothesis"} <= line.keys()
            }
            for scored in self.scored
        ]
        common = [
            Sample(*pair, tuple(found[pair] for found in hypotheses))
            for pair in hypotheses[0]
            if all(pair in found for found in hypotheses)
        ]
        disputed = [sample for sample in common if len(set(sample.hypotheses)) > 1]
        chosen = spread(disputed, DISAGREEING)
        others = [sample for sample in common if sample not in chosen]
        chosen += spread(others, SAMPLES - len(chosen))
        return [sample for sample in common if sample in chosen]


def preferred_split(run: Run) -> str:
    """The split a run is judged by: test, or validation, or whatever there is."""
    return min(run.scored, key=lambda name: (name != "test", name != "validation"))


def device(run: Run) -> str:
    """What a run was trained on, such as `4 x TPU v4`."""
    devices = run.about.get("devices", [])
    return f"{len(devices)} x {devices[0]}" if devices else "unknown"


def groups(
    runs: Sequence[Run], key: Callable[[Run], Hashable]
) -> dict[Hashable, list[str]]:
    """Labels of the runs that share a value, by the value."""
    found: dict[Hashable, list[str]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run.label)
    return found


def told(grouped: dict[Hashable, list[str]]) -> str:
    """Such as `1a2b: rnn, transformer; 3c4d: transformer_xl`."""
    return "; ".join(f"{value}: {', '.join(who)}" for value, who in grouped.items())


def spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly far from each other."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def score_cells(values: dict[str, float]) -> dict[str, str]:
    """Scores as text, by title; one that is not known here keeps its name."""
    return {
        SCORES.get(name, (name, 3))[0]: number(value, SCORES.get(name, (name, 3))[1])
        for name, value in values.items()
    }


def number(value: float, digits: int) -> str:
    """With so many digits after the point; a huge one with three in all."""
    huge = math.isfinite(value) and abs(value) >= 1e6
    return f"{value:.2e}" if huge else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Such as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def plain_table(rows: Sequence[Row]) -> str:
    """The rows for a console: labels to the left, numbers to the right."""
    table = [["", *rows[0].cells], *([row.label, *row.cells.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for label, *cells in table:
        padded = [
            cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)
        ]
        lines.append("  ".join([label.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def _score_titles() -> list[str]:
    titles = [title for title, _ in SCORES.values()]
    place = titles.index(SCORES["bleu"][0]) + 1
    return [*titles[:place], INTERVAL, *titles[place:]]


def _told(value, how: Callable) -> str:
    return "" if value is None else how(value)


def _shown(values: dict, key: str) -> str:
    """A setting as it would be written, empty where a run has no such key."""
    if key not in values:
        return ""
    value = values[key]
    return value if isinstance(value, str) else json.dumps(value)
