"""Comparison of runs: differences, samples, and paired tests of systems."""

import collections
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Hashable, Iterable, Sequence

import sacrebleu

from analysis.paired_tests import PairedTest
from analysis.report.runs import Run
from analysis.report.score_cards import (
    HASHES,
    LABELED,
    ScoreCard,
    compare_cards,
    protocol_differences,
    seed_statistics,
)
from training.run_dir import MACHINE_SPECIFIC_KEYS, flatten_config
from utils.errors import UserError

CHRF = sacrebleu.CHRF()
NUM_SAMPLES = 12
NUM_DISPUTED = 8  # samples on which the runs disagree; more where they rarely agree

PROTOCOL_PREFIX = "scored: "  # before a key of a score card's protocol
MAX_ALL_PAIRS = 4  # systems; of more, each is tested against the first only


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sentence and the hypothesis of each run."""

    source: str
    reference: str
    hypotheses: tuple[str, ...]

    def is_exact(self, hypothesis: str) -> bool:
        return hypothesis.strip() == self.reference.strip()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs of one task that were scored on one split."""

    runs: tuple[Run, ...]
    split: str

    @classmethod
    def from_runs(cls, runs: Sequence[Run]) -> "Comparison":
        """Compares runs on the test split, or else on the validation split.

        Raises UserError for runs of different tasks, or scored on different splits.
        """
        tasks = group_labels(runs, lambda run: run.config["task"])
        if len(tasks) > 1:
            raise UserError(
                f"Cannot compare runs of different tasks: {format_groups(tasks)}"
            )
        splits = group_labels(runs, lambda run: preferred_split(run.results))
        shared = set.intersection(*(set(run.results) for run in runs))
        if not shared:
            raise UserError(
                "Cannot compare runs scored on different splits: "
                f"{format_groups(splits)}. Run eval.py --split=test on each"
            )
        return cls(tuple(runs), preferred_split(shared))

    @property
    def cards(self) -> tuple[ScoreCard, ...]:
        """The score card of each run on the split."""
        return tuple(run.results[self.split] for run in self.runs)

    @property
    def title(self) -> str:
        task = self.runs[0].config["task"].replace("_", " ")
        corpora = group_labels(self.runs, lambda run: run.config["data"]["name"])
        return f"{task}, {', '.join(corpora)}, {self.split} split"

    def warnings(self) -> list[str]:
        """Lists the reasons why some of the numbers are not comparable."""
        data = group_labels(self.runs, self._data_hash)
        devices = group_labels(self.runs, device)
        prefix = PROTOCOL_PREFIX
        keys = [k.removeprefix(prefix) for k, _ in self.differences if prefix in k]
        warnings = {
            f"different data ({format_groups(data)}): the texts or tokens of these "
            "runs differ, so their scores are not comparable": len(data) > 1,
            f"protocols differ ({', '.join(keys)}): do not compare scores": bool(keys),
            f"different devices ({format_groups(devices)}): "
            f"{self.runs[0].unit}/s and training time are not comparable": (
                len(devices) > 1
            ),
        }
        return [text for text, is_true in warnings.items() if is_true] + [
            f"training of {run.label} is incomplete: "
            f"step {run.steps:,} of {run.planned_steps:,}"
            for run in self.runs
            if None not in (run.steps, run.planned_steps)
            and run.steps < run.planned_steps
        ]

    def _data_hash(self, run: Run) -> str:
        settings = run.results[self.split].settings
        known = settings.get(LABELED) or settings.get("data")
        return known or run.about.get("hashes", {}).get("data", "unknown")

    @functools.cached_property
    def differences(self) -> list[tuple[str, list[str]]]:
        """Lists keys of config and protocol that differ, and each run's value."""
        settings = [
            _comparable_config(run)
            | {
                PROTOCOL_PREFIX + key: value
                for key, value in card.settings.items()
                if key not in (*HASHES, LABELED)
            }
            for run, card in zip(self.runs, self.cards, strict=True)
        ]
        table = {
            key: [_format_setting(values.get(key, "")) for values in settings]
            for key in dict.fromkeys(itertools.chain(*settings))
        }
        differing = [item for item in table.items() if len(set(item[1])) > 1]
        # Keys that all runs have come before those of one architecture.
        return sorted(differing, key=lambda item: "" in item[1])

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """Selects sentences that all runs translated, most of them disputed in chrF."""
        translations = [_translations(card.samples) for card in self.cards]
        common = [
            Sample(*pair, tuple(hypotheses[pair] for hypotheses in translations))
            for pair in translations[0]
            if all(pair in hypotheses for hypotheses in translations)
        ]
        disputed = sorted(
            (sample for sample in common if len(set(sample.hypotheses)) > 1),
            key=disagreement,
            reverse=True,
        )
        agreed = [sample for sample in common if len(set(sample.hypotheses)) == 1]
        chosen = disputed[: max(NUM_DISPUTED, NUM_SAMPLES - len(agreed))]
        chosen += take_evenly(agreed, NUM_SAMPLES - len(chosen))
        return [sample for sample in common if sample in chosen]


def preferred_split(splits: Iterable[str]) -> str:
    """Returns test, or else validation, or else the first split by name."""
    return min(splits, key=lambda name: (name != "test", name != "validation", name))


def device(run: Run) -> str:
    """Formats the devices that a run was trained on, such as `4 x TPU v4`."""
    devices = run.about.get("devices", [])
    return f"{len(devices)} x {devices[0]}" if devices else "unknown"


def group_labels(
    runs: Sequence[Run], key: Callable[[Run], Hashable]
) -> dict[Hashable, list[str]]:
    """Groups the labels of runs by a value of the run."""
    groups: dict[Hashable, list[str]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run.label)
    return groups


def format_groups(groups: dict[Hashable, list[str]]) -> str:
    """Formats groups, such as `1a2b: rnn, transformer; 3c4d: transformer_xl`."""
    return "; ".join(f"{value}: {', '.join(runs)}" for value, runs in groups.items())


def disagreement(sample: Sample) -> float:
    """Returns the range of the runs' sentence chrF, from 0 to 100."""
    scores = [
        CHRF.sentence_score(hypothesis, [sample.reference]).score
        for hypothesis in set(sample.hypotheses)
    ]
    return max(scores) - min(scores)


def take_evenly(items: list, count: int) -> list:
    """Returns at most `count` of the items, evenly spaced."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _translations(samples: list[dict]) -> dict[tuple[str, str], str]:
    """Maps (source, reference) to the hypothesis."""
    return {
        (line["source"], line["reference"]): line["hypothesis"]
        for line in samples
        if {"source", "reference", "hypothesis"} <= line.keys()
    }


def _comparable_config(run: Run) -> dict:
    """Returns a run's config without machine-specific keys, keys joined by dots."""
    config = flatten_config(run.config)
    return {key: x for key, x in config.items() if key not in MACHINE_SPECIFIC_KEYS}


def _format_setting(value) -> str:
    """Formats a setting as in a config file."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclasses.dataclass(frozen=True)
class System:
    """Runs that differ only in their seeds, with equal protocols."""

    runs: tuple[Run, ...]
    cards: tuple[ScoreCard, ...]

    @property
    def label(self) -> str:
        more = len(self.runs) - 1
        text = f" and {more} more seed{'s' * (more > 1)}" if more else ""
        return self.runs[0].label + text

    @property
    def seeds(self) -> list[int]:
        return [run.config["seed"] for run in self.runs]

    @property
    def scores(self) -> dict[str, tuple[float, float | None]]:
        """Mean and standard deviation over the runs; the latter None for one run."""
        return seed_statistics(self.cards)


@dataclasses.dataclass(frozen=True)
class SystemPair:
    """Paired tests of two systems, each represented by its first run."""

    first: str
    second: str
    tested: dict[str, PairedTest]  # by score, of the second minus the first
    left_out: tuple[str, ...]  # reasons why other scores were not tested


def group_by_seed(comparison: Comparison) -> list[System]:
    """Groups runs into systems, in the order of their first runs.

    A run that repeats a seed belongs to a system of its own.
    """
    groups: dict[tuple, list[tuple[Run, ScoreCard]]] = {}
    repeats = collections.Counter()
    for run, card in zip(comparison.runs, comparison.cards, strict=True):
        config = _comparable_config(run)
        seed = config.pop("seed"), config.pop("data.seed", 0)
        system = json.dumps([config, card.settings], sort_keys=True)
        members = groups.setdefault((system, repeats[system, seed]), [])
        members.append((run, card))
        repeats[system, seed] += 1
    return [System(*zip(*members, strict=True)) for members in groups.values()]


def compare_systems(systems: Sequence[System]) -> list[SystemPair]:
    """Tests all pairs of up to MAX_ALL_PAIRS systems; of more, each with the first."""
    if len(systems) <= MAX_ALL_PAIRS:
        pairs = itertools.combinations(systems, 2)
    else:
        pairs = ((systems[0], other) for other in systems[1:])
    results = []
    for systems in pairs:
        first, second = (system.cards[0] for system in systems)
        if differences := protocol_differences([first, second]):
            tested, left_out = {}, [f"protocols differ: {'; '.join(differences)}"]
        else:
            tested, left_out = compare_cards(first, second)
        labels = (system.runs[0].label for system in systems)
        results.append(SystemPair(*labels, tested, tuple(left_out)))
    return results
