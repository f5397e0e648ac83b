"""What several runs have in common, and what tells them apart."""

import dataclasses
import json
from collections.abc import Callable, Hashable, Iterable, Sequence

import sacrebleu

from analysis.report.runs import Run, Scored
from training.run_dir import MACHINE_SPECIFIC_KEYS, flatten_config
from utils.errors import UserError

CHRF = sacrebleu.CHRF()
SAMPLES = 12
DISPUTED = 8  # of them, since the runs disagree; more where they rarely agree

SCORED = "scored: "  # before a key of a protocol
# Of a score card's protocol, what is no choice of how to score.
NOT_COMPARED = ("checkpoint", "commit", "config", "data", "vocabulary")


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
        shared = set.intersection(*(set(run.scored) for run in runs))
        if not shared:
            raise UserError(
                f"runs scored on different splits do not compare: {told(splits)}. "
                "Run eval.py --split=test on each"
            )
        return cls(tuple(runs), preferred(shared))

    @property
    def scored(self) -> tuple[Scored, ...]:
        """What each run made of the split."""
        return tuple(run.scored[self.split] for run in self.runs)

    @property
    def title(self) -> str:
        """Task, corpora and split."""
        task = self.runs[0].config["task"].replace("_", " ")
        corpora = groups(self.runs, lambda run: run.config["data"]["name"])
        return f"{task}, {', '.join(corpora)}, {self.split} split"

    def warnings(self) -> list[str]:
        """Why some of the numbers do not compare."""
        found = []
        data = groups(self.runs, self._data)
        if len(data) > 1:
            found.append(
                f"different data ({told(data)}): the texts or the tokens of these "
                "runs are not the same, so their scores do not compare"
            )
        unlike = [key for key, _ in self.differences() if key.startswith(SCORED)]
        if unlike:
            keys = ", ".join(key.removeprefix(SCORED) for key in unlike)
            found.append(
                f"scored differently ({keys}): scores compare only where that is the "
                "question"
            )
        devices = groups(self.runs, device)
        if len(devices) > 1:
            found.append(
                f"different devices ({told(devices)}): "
                "tokens/s and training time do not compare"
            )
        for run in self.runs:
            done, planned = run.steps, run.planned_steps
            if done is not None and planned is not None and done < planned:
                found.append(
                    f"{run.label} is not trained to the end: "
                    f"step {done:,} of {planned:,}"
                )
        return found

    def _data(self, run: Run) -> str:
        known = run.scored[self.split].card.get("protocol", {}).get("data")
        return known or run.about.get("hashes", {}).get("data", "unknown")

    def differences(self) -> list[tuple[str, list[str]]]:
        """Keys of config and protocol that differ, each with every run's value."""
        settings = [
            flatten_config(run.config) | flatten_config(_protocol(scored.card), SCORED)
            for run, scored in zip(self.runs, self.scored, strict=True)
        ]
        keys = dict.fromkeys(key for values in settings for key in values)
        table = [
            (key, [_shown(values, key) for values in settings])
            for key in keys
            if key not in MACHINE_SPECIFIC_KEYS
        ]
        differing = [(key, values) for key, values in table if len(set(values)) > 1]
        # What each of them has comes before what is peculiar to an architecture.
        return sorted(differing, key=lambda item: "" in item[1])

    def samples(self) -> list[Sample]:
        """Some sentences that all runs translated, most of them in dispute.

        Of those in dispute the ones on which the runs' chrF lies farthest apart.
        """
        translations = [_translations(scored.samples) for scored in self.scored]
        common = [
            Sample(*pair, tuple(found[pair] for found in translations))
            for pair in translations[0]
            if all(pair in found for found in translations)
        ]
        agreed = [sample for sample in common if len(set(sample.hypotheses)) == 1]
        disputed = [sample for sample in common if len(set(sample.hypotheses)) > 1]
        disputed = sorted(disputed, key=disagreement, reverse=True)
        chosen = disputed[: max(DISPUTED, SAMPLES - len(agreed))]
        chosen += spread(agreed, SAMPLES - len(chosen))
        return [sample for sample in common if sample in chosen]


def preferred_split(run: Run) -> str:
    """The split a run is judged by."""
    return preferred(run.scored)


def preferred(splits: Iterable[str]) -> str:
    """Test, or validation, or whatever there is."""
    return min(splits, key=lambda name: (name != "test", name != "validation", name))


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


def disagreement(sample: Sample) -> float:
    """How far apart the runs' sentence chrF lies, from 0 to 100."""
    scores = [
        CHRF.sentence_score(hypothesis, [sample.reference]).score
        for hypothesis in set(sample.hypotheses)
    ]
    return max(scores) - min(scores)


def spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly far from each other."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _translations(samples: list[dict]) -> dict[tuple[str, str], str]:
    """Hypotheses by source and reference."""
    return {
        (line["source"], line["reference"]): line["hypothesis"]
        for line in samples
        if {"source", "reference", "hypothesis"} <= line.keys()
    }


def _protocol(card: dict) -> dict:
    protocol = card.get("protocol", {})
    return {key: value for key, value in protocol.items() if key not in NOT_COMPARED}


def _shown(values: dict, key: str) -> str:
    """A setting as it would be written, empty where a run has no such key."""
    if key not in values:
        return ""
    value = values[key]
    return value if isinstance(value, str) else json.dumps(value)
