"""Score cards with what `eval.py` left beside them, and how their protocols differ."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.report.comparison import NOT_COMPARED
from analysis.report.runs import read_lines, read_object
from training.run_dir import RunDirectory, flatten_config
from utils.errors import UserError

HASHES = ("data", "vocabulary")  # a comparison of runs warns of them by itself


@dataclasses.dataclass(frozen=True)
class Card:
    """A score card.

    Attributes:
      path: of its file.
      content: the card.
      hypotheses, references: of a translation; none of a text.
      blocks: sums of losses and their weights; None where they were not kept.
    """

    path: Path
    content: dict
    hypotheses: list[str]
    references: list[str]
    blocks: tuple[np.ndarray, np.ndarray] | None

    @property
    def values(self) -> dict[str, float]:
        """Scores by name."""
        return {name: score["value"] for name, score in self.content["scores"].items()}

    @property
    def settings(self) -> dict:
        """What two cards must share to be compared."""
        told = flatten_config(self.content.get("protocol", {}))
        ignored = set(NOT_COMPARED) - set(HASHES)
        shared = {key: value for key, value in told.items() if key not in ignored}
        return {"split": self.content["split"], **shared}


def open_card(place: str, split: str) -> Card:
    """The card in a file, or the newest of a split in a run directory.

    Raises UserError where there is none, or for a run of another format.
    """
    directory = RunDirectory(place)
    path = directory.path
    if path.is_dir():
        directory.check_format()
        path = newest(path, split)
    if not path.is_file():
        raise UserError(f"{place}: there is no such score card or run directory")
    content = read_object(path, "split", "step", "scores")
    if not isinstance(content["scores"], dict):
        raise UserError(f"{path} is damaged: its scores are none")
    samples = path.parent.parent / "samples"
    lines = read_lines(samples / f"{path.stem}.jsonl")
    kept = samples / f"{path.stem}.references.txt"
    references = text_lines(kept) if kept.exists() else []
    if references and len(references) != len(lines):
        raise UserError(
            f"{samples}: {path.stem}.jsonl has {len(lines)} hypotheses for "
            f"{len(references)} references: run eval.py again"
        )
    hypotheses = [line["hypothesis"] for line in lines]
    return Card(
        path, content, hypotheses, references, read_blocks(path.with_suffix(".npz"))
    )


def newest(run: Path, split: str) -> Path:
    """The card of a split with the highest step."""
    found = {
        path: read_object(path, "split", "step") for path in run.glob("eval/*.json")
    }
    cards = {path: card for path, card in found.items() if card["split"] == split}
    if not cards:
        raise UserError(
            f"{run} holds no score card of the split {split!r}: run "
            f"eval.py --workdir={run} --split={split} first"
        )
    return max(cards, key=lambda path: (cards[path]["step"], path.name))


def text_lines(path: Path) -> list[str]:
    """The lines of a file, which alone end with a line feed."""
    return path.read_text(encoding="utf8").removesuffix("\n").split("\n")


def read_blocks(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Sums and weights that `eval.py` kept."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return kept["total"], kept["weight"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: run eval.py again") from error


def unlike(cards: Sequence[Card]) -> list[str]:
    """`key is x in A and y in B` for each setting that the cards do not share."""
    first = cards[0]
    found: dict[str, str] = {}
    for card in cards[1:]:
        for key in first.settings | card.settings:
            one, other = first.settings.get(key), card.settings.get(key)
            if one != other:
                told = f"{key} is {one!r} in {first.path} and {other!r} in {card.path}"
                found.setdefault(key, told)
    return list(found.values())
