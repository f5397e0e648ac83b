"""Score cards, the other files of the same evaluation, and paired tests of cards."""

import dataclasses
import importlib
import json
import math
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.paired_tests import (
    BlockStatistics,
    PairedTest,
    loss_statistics,
    metric_statistics,
    text_statistics,
)
from tasks.text_metrics.base import Texts
from tasks.text_metrics.registry import METRICS
from training.run_dir import RunDirectory, flatten_config
from utils.errors import UserError

# Tests of language understanding, imported for its score cards only.
LABEL_TESTS = "analysis.label_tests"
LABEL_SCORES = {"accuracy", "f1", "pearson", "token_accuracy"}  # a card has one
HASHES = ("data", "vocabulary")  # of a score card's protocol
LABELED = "labeled_texts"  # hash of the texts and labels that a card scores
# Fields of a protocol that, where it has LABELED, belong to the model: they change what
# it predicts, and nothing of how predictions are scored.
MODEL_FIELDS = (
    *HASHES,
    *("tokenizer", "lowercase", "max_length", "truncated"),
    *("pooling", "compare_pair", "crf"),
    *("classes", "tags", "intents", "unseen_labels", "unseen_tags", "unseen_intents"),
)
# Fields of a protocol that are no choice of how to score.
NOT_COMPARED = (
    *("checkpoint", "commit", "config", "invalid_expressions"),
    "truncated.longer_references",  # references that are longer than outputs may be
)


@dataclasses.dataclass(frozen=True)
class ScoreCard:
    """The evaluation of a run on a split."""

    path: Path  # of the card; of the run, where a line of its log replaces the card
    content: dict  # the JSON object
    samples: Sequence[dict] = ()  # sentences with their hypotheses, of a translation
    references: Sequence[str] = ()  # of a translation
    blocks: tuple[np.ndarray, np.ndarray] | None = None  # sums of losses, and weights
    attention: dict | None = None  # the attention map of a sample, if there is one

    @property
    def hypotheses(self) -> list[str]:
        return [line["hypothesis"] for line in self.samples]

    @property
    def compared_texts(self) -> Texts:
        """Hypotheses beside references and columns, of a task with `eval.metrics`."""
        references = [
            [first, *line.get("further_references", ())]
            for first, line in zip(self.references, self.samples, strict=True)
        ]
        names = self.samples[0].get("columns", {})
        columns = {name: [s["columns"][name] for s in self.samples] for name in names}
        language = self.content["protocol"]["target_language"]
        return Texts(self.hypotheses, references, language, columns)

    @property
    def values(self) -> dict[str, float]:
        """Values of the scores by name; null stands for one that is not finite."""
        scores = self.content["scores"]
        return {name: _from_json(score["value"]) for name, score in scores.items()}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        return {
            name: {score: _from_json(value) for score, value in scores.items()}
            for name, scores in self.content.get("baselines", {}).items()
        }

    @property
    def settings(self) -> dict:
        """The settings that two cards must share to be comparable."""
        protocol = self.content.get("protocol", {})
        ignored = NOT_COMPARED + (MODEL_FIELDS if LABELED in protocol else ())
        shared = {
            key: value
            for key, value in flatten_config(protocol).items()
            if not {key, key.partition(".")[0]} & {*ignored}
        }
        return {"split": self.content["split"], **shared}


def _from_json(value: float | None) -> float:
    return math.nan if value is None else value


def open_card(location: str, split: str) -> ScoreCard:
    """Reads the card in a file, or the newest of a split in a run directory.

    Raises UserError where there is none, or for a run of another format.
    """
    directory = RunDirectory(location)
    path = directory.path
    if path.is_dir():
        directory.check_format()
        cards = newest_cards(path)
        if split not in cards:
            raise UserError(
                f"{path} has no score card of the split {split!r}: run "
                f"eval.py --workdir={path} --split={split} first"
            )
        path = cards[split]
    if not path.is_file():
        raise UserError(f"{location}: no such score card or run directory")
    return read_card(path)


def newest_cards(run: Path) -> dict[str, Path]:
    """Returns the path of the card with the highest step, by split."""
    cards: dict[str, tuple[int, Path]] = {}
    for path in sorted(run.glob("eval/*.json")):
        card = read_object(path, "split", "step")
        if not isinstance(card["step"], int):
            raise UserError(f"{path} is damaged: its step is {card['step']!r}")
        if card["step"] >= cards.get(card["split"], (card["step"],))[0]:
            cards[card["split"]] = card["step"], path
    return {split: path for split, (_, path) in cards.items()}


def read_card(path: Path) -> ScoreCard:
    """Reads a card and its other files. Raises UserError where one is damaged."""
    content = read_object(path, "split", "step", "scores")
    if not isinstance(content["scores"], dict):
        raise UserError(f"{path} is damaged: its scores are not an object")
    run, name = path.parent.parent, path.stem  # "-average-N" for averaged checkpoints
    samples = read_lines(run / "samples" / f"{name}.jsonl")
    file, references = run / "samples" / f"{name}.references.txt", []
    if file.exists():  # only a line feed ends a line
        references = file.read_text(encoding="utf8").removesuffix("\n").split("\n")
    if references and len(references) != len(samples):
        raise UserError(
            f"{file.parent}: {name}.jsonl has {len(samples)} hypotheses for "
            f"{len(references)} references: run eval.py again"
        )
    plot = run / "plots" / f"attention-{name}.json"
    attention = read_object(plot) if plot.exists() else None
    blocks = _read_blocks(path.with_suffix(".npz"))
    return ScoreCard(path, content, samples, references, blocks, attention)


def _read_blocks(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["total"], arrays["weight"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: run eval.py again") from error


def read_lines(path: Path) -> list[dict]:
    """Reads the objects of a JSON-lines file, without an incomplete last line."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path} is damaged: line {number} is not an object")
    return rows


def read_object(path: Path, *keys: str) -> dict:
    """Reads a JSON object. Raises UserError where it is damaged or lacks a key."""
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path} is not a file of this project: it lacks {key!r}")
    return content


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
    values = {n: [card.values[n] for card in cards] for n in _shared_scores(cards)}
    return {
        name: (statistics.fmean(x), _deviation(x) if len(x) > 1 else None)
        for name, x in values.items()
    }


def _deviation(values: Sequence[float]) -> float:
    """Returns the sample standard deviation; `statistics.stdev` fails for nan."""
    return statistics.stdev(values) if np.isfinite(values).all() else math.nan


def compare_cards(
    first: ScoreCard, second: ScoreCard
) -> tuple[dict[str, PairedTest], list[str]]:
    """Runs paired tests on two cards; also lists why other scores are not tested."""
    statistics, reasons = card_statistics([first, second])
    return {name: entry.compare() for name, entry in statistics.items()}, reasons


def card_statistics(
    cards: Sequence[ScoreCard],
) -> tuple[dict[str, BlockStatistics], list[str]]:
    """Returns statistics of the cards' blocks by score, and why others have none.

    Blocks are sentences or other examples, and those of consecutive tokens for the
    loss. All cards must be of the same split, with the same references.
    """
    statistics, reasons = {}, []
    if set.intersection(LABEL_SCORES, *(set(card.values) for card in cards)):
        labels, labels_reasons = _label_statistics(cards)
        statistics |= labels
        reasons += labels_reasons
    elif any(card.samples for card in cards):
        texts, texts_reasons = _text_statistics(cards)
        statistics |= texts
        reasons += texts_reasons
    if any(card.blocks is None for card in cards):
        reasons.append("loss: sums of losses are missing; run eval.py again")
    elif any(_tokens_of(card) != _tokens_of(cards[0]) for card in cards[1:]):
        reasons.append("loss: the cards are not of the same tokens")
    elif not all(np.isfinite(card.blocks[0]).all() for card in cards):
        reasons.append("loss: sums of losses are not finite")
    else:
        losses = [card.blocks[0] for card in cards]
        statistics["loss"] = loss_statistics(losses, cards[0].blocks[1])
    return statistics, reasons


def _text_statistics(
    cards: Sequence[ScoreCard],
) -> tuple[dict[str, BlockStatistics], list[str]]:
    """Returns statistics of metrics of texts, or why there are none."""
    first = cards[0]
    if not first.references or any(x.references != first.references for x in cards):
        return {}, ["bleu and chrf: the references of the cards differ"]
    # Without `eval.metrics` a card has BLEU and chrF, and BLEU's signature a tokenizer.
    if not all("target_language" in card.settings for card in cards):
        signature = first.content["protocol"]["bleu_signature"].split("|")
        tokenize = dict(part.split(":", 1) for part in signature)["tok"]
        systems = [card.hypotheses for card in cards]
        statistics = text_statistics(systems, first.references, tokenize=tokenize)
        references = [[text] for text in first.references]
        texts = [Texts(system, references, "", {}) for system in systems]
        names = {"exact_match"}.intersection(_shared_scores(cards))
        return statistics | metric_statistics(names, texts), []
    texts = [card.compared_texts for card in cards]
    kept = [(one.references, one.columns) for one in texts]
    if any(one != kept[0] for one in kept):
        return {}, ["metrics: references or columns of the cards differ"]
    names = [n for n in _shared_scores(cards) if n in METRICS]
    return metric_statistics(names, texts), []


def _label_statistics(
    cards: Sequence[ScoreCard],
) -> tuple[dict[str, BlockStatistics], list[str]]:
    """Returns statistics of labels, tags or grades, or why there are none."""
    samples = [card.samples for card in cards]
    if not all(samples):  # of a kept run, or a line of a log
        return {}, ["labels: predictions are missing; run eval.py again"]
    label_tests = importlib.import_module(LABEL_TESTS)
    try:
        return label_tests.label_statistics(samples, _shared_scores(cards)), []
    except UserError as error:
        return {}, [f"labels: {error}"]


def _shared_scores(cards: Sequence[ScoreCard]) -> list[str]:
    """Returns the names of the scores that all cards have, as the first orders them."""
    return [name for name in cards[0].values if all(name in c.values for c in cards)]


def _tokens_of(card: ScoreCard) -> list:
    """Identifies the tokens of a card's blocks: text, vocabulary and counts."""
    hashes = [card.content.get("protocol", {}).get(key) for key in HASHES]
    return [card.content["split"], *hashes, card.blocks[1].tolist()]
