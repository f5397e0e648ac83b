"""Comparison of several runs: their differences, warnings, and translated samples."""

import dataclasses
import functools
import json
from collections.abc import Callable, Hashable, Iterable, Sequence

import sacrebleu

from analysis.report.runs import EvalResult, Run
from training.run_dir import MACHINE_SPECIFIC_KEYS, flatten_config
from utils.errors import UserError

CHRF = sacrebleu.CHRF()
NUM_SAMPLES = 12
NUM_DISPUTED = 8  # samples on which the runs disagree; more where they rarely agree

PROTOCOL_PREFIX = "scored: "  # before a key of a score card's protocol
# Fields of a score card's protocol that are no choice of how to score.
NOT_COMPARED = ("checkpoint", "commit", "config", "data", "vocabulary")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sentence and the hypothesis of each run."""

    source: str
    reference: str
    hypotheses: tuple[str, ...]

    def is_exact(self, hypothesis: str) -> bool:
        """Whether a hypothesis equals the reference."""
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
    def results(self) -> tuple[EvalResult, ...]:
        """The evaluation of each run on the split."""
        return tuple(run.results[self.split] for run in self.runs)

    @property
    def title(self) -> str:
        """Task, corpora and split of the comparison."""
        task = self.runs[0].config["task"].replace("_", " ")
        corpora = group_labels(self.runs, lambda run: run.config["data"]["name"])
        return f"{task}, {', '.join(corpora)}, {self.split} split"

    def warnings(self) -> list[str]:
        """Lists the reasons why some of the numbers are not comparable."""
        warnings = []
        data = group_labels(self.runs, self._data_hash)
        if len(data) > 1:
            warnings.append(
                f"different data ({format_groups(data)}): the texts or tokens of these "
                "runs differ, so their scores are not comparable"
            )
        keys = [
            key.removeprefix(PROTOCOL_PREFIX)
            for key, _ in self.differences
            if key.startswith(PROTOCOL_PREFIX)
        ]
        if keys:
            warnings.append(
                f"protocols differ ({', '.join(keys)}): do not compare scores"
            )
        devices = group_labels(self.runs, device)
        if len(devices) > 1:
            warnings.append(
                f"different devices ({format_groups(devices)}): "
                "tokens/s and training time are not comparable"
            )
        for run in self.runs:
            done, planned = run.steps, run.planned_steps
            if done is not None and planned is not None and done < planned:
                warnings.append(
                    f"training of {run.label} is incomplete: "
                    f"step {done:,} of {planned:,}"
                )
        return warnings

    def _data_hash(self, run: Run) -> str:
        known = run.results[self.split].card.get("protocol", {}).get("data")
        return known or run.about.get("hashes", {}).get("data", "unknown")

    @functools.cached_property
    def differences(self) -> list[tuple[str, list[str]]]:
        """Lists keys of config and protocol that differ, with the value of each run."""
        settings = [
            flatten_config(run.config)
            | flatten_config(_protocol(result.card), PROTOCOL_PREFIX)
            for run, result in zip(self.runs, self.results, strict=True)
        ]
        keys = dict.fromkeys(key for values in settings for key in values)
        table = [
            (key, [_format_setting(values, key) for values in settings])
            for key in keys
            if key not in MACHINE_SPECIFIC_KEYS
        ]
        differing = [(key, values) for key, values in table if len(set(values)) > 1]
        # Keys that all runs have come before those of one architecture.
        return sorted(differing, key=lambda item: "" in item[1])

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """Selects sentences that all runs translated, most of them disputed.

        The disputed ones are those with the largest differences of chrF.
        """
        translations = [_translations(result.samples) for result in self.results]
        common = [
            Sample(*pair, tuple(hypotheses[pair] for hypotheses in translations))
            for pair in translations[0]
            if all(pair in hypotheses for hypotheses in translations)
        ]
        agreed = [sample for sample in common if len(set(sample.hypotheses)) == 1]
        disputed = [sample for sample in common if len(set(sample.hypotheses)) > 1]
        disputed = sorted(disputed, key=disagreement, reverse=True)
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
    return "; ".join(
        f"{value}: {', '.join(labels)}" for value, labels in groups.items()
    )


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


def _protocol(card: dict) -> dict:
    protocol = card.get("protocol", {})
    return {key: value for key, value in protocol.items() if key not in NOT_COMPARED}


def _format_setting(values: dict, key: str) -> str:
    """Formats a setting as in a config file, empty where a run has no such key."""
    if key not in values:
        return ""
    value = values[key]
    return value if isinstance(value, str) else json.dumps(value)
