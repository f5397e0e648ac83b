"""Runs as systems: seeds of one belong together, and systems are tested in pairs."""

import collections
import dataclasses
import itertools
import json
from collections.abc import Sequence

from analysis.paired_tests import Paired
from analysis.report.cards import Card, open_card, unlike
from analysis.report.comparison import Comparison
from analysis.report.runs import Run
from analysis.significance import over_seeds, pairs_of
from training.run_dir import MACHINE_SPECIFIC_KEYS, flatten_config

EVERY_PAIR = 4  # systems; of more each is tested against the first alone


@dataclasses.dataclass(frozen=True)
class System:
    """Runs that differ in nothing but their seed, scored alike.

    Attributes:
      scores: mean and deviation over the runs; no deviation of one run.
    """

    label: str
    runs: tuple[Run, ...]
    cards: tuple[Card, ...]
    scores: dict[str, tuple[float, float | None]]

    @property
    def seeds(self) -> list[int]:
        """Of its runs."""
        return [run.config["seed"] for run in self.runs]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two systems, each by the first of its runs.

    Attributes:
      tested: by score; the difference is the second's less the first's.
      left_out: why the rest was not tested.
    """

    first: str
    second: str
    tested: dict[str, Paired]
    left_out: tuple[str, ...]


def systems(comparison: Comparison) -> list[System]:
    """In the order of their first runs; one that repeats a seed is another."""
    found: dict[tuple, list[tuple[Run, Card]]] = {}
    times = collections.Counter()
    for run in comparison.runs:
        card = card_of(run, comparison.split)
        same = _without_seed(run), json.dumps(card.settings, sort_keys=True)
        seed = *same, run.config["seed"]
        found.setdefault((*same, times[seed]), []).append((run, card))
        times[seed] += 1
    return [_system(*zip(*members, strict=True)) for members in found.values()]


def _without_seed(run: Run) -> str:
    kept = {
        key: value
        for key, value in flatten_config(run.config).items()
        if key not in MACHINE_SPECIFIC_KEYS and key != "seed"
    }
    return json.dumps(kept, sort_keys=True)


def _system(runs: tuple[Run, ...], cards: tuple[Card, ...]) -> System:
    label = runs[0].label
    if len(runs) > 1:
        label += f" and {len(runs) - 1} more seed" + "s" * (len(runs) > 2)
    return System(label, runs, cards, over_seeds(list(cards)))


def card_of(run: Run, split: str) -> Card:
    """The score card, or what stands for one in a trial that was not scored."""
    scored = run.scored[split]
    if scored.file is not None:
        return open_card(str(scored.file), split)
    return Card(run.path, scored.card, [], [], None)


def pairs(found: Sequence[System]) -> list[Pair]:
    """Of up to EVERY_PAIR systems each pair; of more, all with the first."""
    if len(found) <= EVERY_PAIR:
        chosen = itertools.combinations(found, 2)
    else:
        chosen = ((found[0], other) for other in found[1:])
    return [_pair(one, other) for one, other in chosen]


def _pair(one: System, other: System) -> Pair:
    cards = [one.cards[0], other.cards[0]]
    if reasons := unlike(cards):
        tested, left_out = {}, [f"protocols differ: {'; '.join(reasons)}"]
    else:
        tested, left_out = pairs_of(*cards)
    labels = one.runs[0].label, other.runs[0].label
    return Pair(*labels, tested, tuple(left_out))
