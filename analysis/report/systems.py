"""Score cards, systems of several seeds, and paired tests between systems."""

import collections
import dataclasses
import itertools
import json
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.paired_tests import PairedTest, compare_losses, compare_texts
from analysis.report.comparison import NOT_COMPARED, Comparison
from analysis.report.runs import Run, read_lines, read_object
from training.run_dir import MACHINE_SPECIFIC_KEYS, RunDirectory, flatten_config
from utils.errors import UserError

HASHES = ("data", "vocabulary")  # a Comparison has a warning of its own for them
MAX_ALL_PAIRS = 4  # systems; of more, each is tested against the first only


@dataclasses.dataclass(frozen=True)
class ScoreCard:
    """A score card with the other files of the same evaluation.

    Attributes:
      path: of the card's file.
      content: the JSON object.
      hypotheses, references: of a translation; empty for a language model.
      blocks: sums of losses and their weights; None where they are missing.
    """

    path: Path
    content: dict
    hypotheses: list[str]
    references: list[str]
    blocks: tuple[np.ndarray, np.ndarray] | None

    @property
    def values(self) -> dict[str, float]:
        """Values of the scores by name."""
        return {name: score["value"] for name, score in self.content["scores"].items()}

    @property
    def settings(self) -> dict:
        """The settings that two cards must share to be comparable."""
        protocol = flatten_config(self.content.get("protocol", {}))
        ignored = set(NOT_COMPARED) - set(HASHES)
        shared = {key: value for key, value in protocol.items() if key not in ignored}
        return {"split": self.content["split"], **shared}


def open_card(location: str, split: str) -> ScoreCard:
    """Reads the card in a file, or the newest of a split in a run directory.

    Raises UserError where there is none, or for a run of another format.
    """
    directory = RunDirectory(location)
    path = directory.path
    if path.is_dir():
        directory.check_format()
        path = newest_card(path, split)
    if not path.is_file():
        raise UserError(f"{location}: no such score card or run directory")
    content = read_object(path, "split", "step", "scores")
    if not isinstance(content["scores"], dict):
        raise UserError(f"{path} is damaged: its scores are not an object")
    samples = path.parent.parent / "samples"
    lines = read_lines(samples / f"{path.stem}.jsonl")
    file, references = samples / f"{path.stem}.references.txt", []
    if file.exists():  # only a line feed ends a line
        references = file.read_text(encoding="utf8").removesuffix("\n").split("\n")
    if references and len(references) != len(lines):
        raise UserError(
            f"{samples}: {path.stem}.jsonl has {len(lines)} hypotheses for "
            f"{len(references)} references: run eval.py again"
        )
    hypotheses = [line["hypothesis"] for line in lines]
    blocks = read_blocks(path.with_suffix(".npz"))
    return ScoreCard(path, content, hypotheses, references, blocks)


def newest_card(run: Path, split: str) -> Path:
    """Returns the path of a split's card with the highest step."""
    contents = {
        path: read_object(path, "split", "step") for path in run.glob("eval/*.json")
    }
    cards = {path: card for path, card in contents.items() if card["split"] == split}
    if not cards:
        raise UserError(
            f"{run} has no score card of the split {split!r}: run "
            f"eval.py --workdir={run} --split={split} first"
        )
    return max(cards, key=lambda path: (cards[path]["step"], path.name))


def read_blocks(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads the sums of losses and their weights that `eval.py` wrote."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["total"], arrays["weight"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: run eval.py again") from error


def protocol_differences(cards: Sequence[ScoreCard]) -> list[str]:
    """Lists `key is x in A and y in B` for each setting that the cards do not share."""
    first = cards[0]
    differences: dict[str, str] = {}
    for card in cards[1:]:
        for key in first.settings | card.settings:
            one, other = first.settings.get(key), card.settings.get(key)
            if one != other:
                text = f"{key} is {one!r} in {first.path} and {other!r} in {card.path}"
                differences.setdefault(key, text)
    return list(differences.values())


def seed_statistics(
    cards: Sequence[ScoreCard],
) -> dict[str, tuple[float, float | None]]:
    """Computes mean and sample standard deviation of each score that all seeds have."""
    found = {}
    for name in cards[0].values:
        values = [card.values[name] for card in cards if name in card.values]
        if len(values) == len(cards):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[name] = statistics.fmean(values), deviation
    return found


def compare_cards(
    first: ScoreCard, second: ScoreCard
) -> tuple[dict[str, PairedTest], list[str]]:
    """Runs paired tests on two cards; also lists why other scores are not tested."""
    tests, reasons = {}, []
    if first.hypotheses or second.hypotheses:
        if first.references and first.references == second.references:
            tests |= compare_texts(
                first.hypotheses,
                second.hypotheses,
                first.references,
                tokenize=bleu_tokenizer(first),
            )
        else:
            reasons.append("bleu and chrf: the references of the cards differ")
    if first.blocks is None or second.blocks is None:
        reasons.append("loss: sums of losses are missing; run eval.py again")
    elif not has_same_tokens(first, second):
        reasons.append("loss: the cards are not of the same tokens")
    else:
        (losses, weight), (other_losses, _) = first.blocks, second.blocks
        tests["loss"] = compare_losses(losses, other_losses, weight)
    return tests, reasons


def has_same_tokens(first: ScoreCard, second: ScoreCard) -> bool:
    """Whether two cards have blocks of the same tokens: text, vocabulary and counts."""
    hashes = [
        [card.settings.get(key) for key in ("split", "data", "vocabulary")]
        for card in (first, second)
    ]
    weights = [card.blocks[1].tolist() for card in (first, second)]
    return hashes[0] == hashes[1] and weights[0] == weights[1]


def bleu_tokenizer(card: ScoreCard) -> str:
    """Returns the name of sacrebleu's tokenizer in the signature of a card."""
    parts = card.content["protocol"]["bleu_signature"].split("|")
    return dict(part.split(":", 1) for part in parts)["tok"]


@dataclasses.dataclass(frozen=True)
class System:
    """Runs that differ only in their seed, with equal protocols.

    Attributes:
      scores: mean and standard deviation over the runs; the latter None for one run.
    """

    label: str
    runs: tuple[Run, ...]
    cards: tuple[ScoreCard, ...]
    scores: dict[str, tuple[float, float | None]]

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.config["seed"] for run in self.runs]


@dataclasses.dataclass(frozen=True)
class SystemPair:
    """Paired tests of two systems, each represented by its first run.

    Attributes:
      tested: by score; a difference is the second's score minus the first's.
      left_out: reasons why other scores were not tested.
    """

    first: str
    second: str
    tested: dict[str, PairedTest]
    left_out: tuple[str, ...]


def group_by_seed(comparison: Comparison) -> list[System]:
    """Groups runs into systems, in the order of their first runs.

    A run that repeats a seed belongs to a system of its own.
    """
    groups: dict[tuple, list[tuple[Run, ScoreCard]]] = {}
    repeats = collections.Counter()
    for run in comparison.runs:
        card = result_card(run, comparison.split)
        system = _config_key(run), json.dumps(card.settings, sort_keys=True)
        seed = *system, run.config["seed"]
        groups.setdefault((*system, repeats[seed]), []).append((run, card))
        repeats[seed] += 1
    return [_make_system(*zip(*members, strict=True)) for members in groups.values()]


def _config_key(run: Run) -> str:
    """Returns a run's config without its seed and machine-specific keys."""
    settings = {
        key: value
        for key, value in flatten_config(run.config).items()
        if key not in MACHINE_SPECIFIC_KEYS and key != "seed"
    }
    return json.dumps(settings, sort_keys=True)


def _make_system(runs: tuple[Run, ...], cards: tuple[ScoreCard, ...]) -> System:
    label = runs[0].label
    if len(runs) > 1:
        label += f" and {len(runs) - 1} more seed" + "s" * (len(runs) > 2)
    return System(label, runs, cards, seed_statistics(cards))


def result_card(run: Run, split: str) -> ScoreCard:
    """Returns the score card of a run, or that of a trial's logged validation."""
    result = run.results[split]
    if result.file is not None:
        return open_card(str(result.file), split)
    return ScoreCard(run.path, result.card, [], [], None)


def compare_systems(systems: Sequence[System]) -> list[SystemPair]:
    """Tests all pairs of up to MAX_ALL_PAIRS systems; of more, each with the first."""
    if len(systems) <= MAX_ALL_PAIRS:
        pairs = itertools.combinations(systems, 2)
    else:
        pairs = ((systems[0], other) for other in systems[1:])
    return [_compare_pair(first, second) for first, second in pairs]


def _compare_pair(first: System, second: System) -> SystemPair:
    cards = [first.cards[0], second.cards[0]]
    if differences := protocol_differences(cards):
        tested, left_out = {}, [f"protocols differ: {'; '.join(differences)}"]
    else:
        tested, left_out = compare_cards(*cards)
    labels = first.runs[0].label, second.runs[0].label
    return SystemPair(*labels, tested, tuple(left_out))
