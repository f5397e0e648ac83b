"""Run directories as plain values: what was configured, logged and scored."""

import collections
import dataclasses
import functools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from analysis.report.sweep_results import is_sweep, open_sweep
from analysis.report.training_cost import Spent
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import canonical_path


@dataclasses.dataclass(frozen=True)
class Scored:
    """What `eval.py` left of a split.

    Attributes:
      card: the score card.
      samples: sentences with their hypotheses; none for a text.
      attention: what `analysis/attention/maps.py` drew, if it did.
      file: of the card; None where a line of the log stands for one.
    """

    card: dict
    samples: list[dict]
    attention: dict | None
    file: Path | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run directory says.

    Attributes:
      label: what tells the run from the others at hand.
      metrics: the lines of metrics.jsonl by split, in order.
      scored: by split, of the latest step that was scored.
    """

    path: Path
    label: str
    config: dict
    about: dict
    metrics: dict[str, list[dict]]
    scored: dict[str, Scored]

    @property
    def steps(self) -> int | None:
        """How far training came, as logged."""
        return self._train[-1]["step"] if self._train else None

    @property
    def planned_steps(self) -> int | None:
        """Those of the whole training; None where the run does not say."""
        if self.about.get("steps"):
            return self.about["steps"]
        return None if self.config.get("epochs") else self.config["steps"]

    @property
    def seconds(self) -> float | None:
        """Seconds of training, those before an interruption included."""
        return self._train[-1]["seconds"] if self._train else None

    @property
    def tokens_per_second(self) -> float | None:
        """The median, without the first line, which holds a compilation."""
        speeds = [line["tokens_per_second"] for line in self._train[1:]]
        return statistics.median(speeds) if speeds else None

    @property
    def mfu(self) -> float | None:
        """The median share of what the devices could do at most."""
        found = [line.get("mfu") for line in self._train[1:]]
        known = [share for share in found if share is not None]
        return statistics.median(known) if known else None

    @property
    def peak_memory(self) -> int | None:
        """Bytes, the most that any of the run's processes logged."""
        sizes = [line.get("peak_memory_bytes", 0) for line in self._train]
        return max(sizes, default=0) or None

    @functools.cached_property
    def spent(self) -> Spent | None:
        """Tokens, seconds and FLOPs of training by step; None: nothing was logged."""
        return Spent.of(self._train)

    @property
    def _train(self) -> list[dict]:
        return self.metrics.get("train", [])


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs of some directories, each with a label of its own.

    A sweep's directory stands for its trials that came to their end.

    Raises UserError for a path that is neither a scored run nor a sweep, or stands
    twice.
    """
    runs = []
    for path in paths:
        runs += trials_of(path) if is_sweep(path) else [read_run(path)]
    places = collections.Counter(canonical_path(run.path) for run in runs)
    for run in runs:
        if places[canonical_path(run.path)] > 1:
            raise UserError(f"{run.path} is given twice: name each run once")
    for name in (_with_folder, _with_path):
        taken = collections.Counter(run.label for run in runs)
        runs = [
            dataclasses.replace(run, label=name(run)) if taken[run.label] > 1 else run
            for run in runs
        ]
    return runs


def _with_folder(run: Run) -> str:
    return f"{run.config['model']['name']} ({canonical_path(run.path).name})"


def _with_path(run: Run) -> str:
    return f"{run.config['model']['name']} ({run.path})"


def trials_of(path: str) -> list[Run]:
    """The runs of a sweep, in the order of trials.

    Raises UserError where none has come to its end.
    """
    sweep = open_sweep(path)
    done = sorted(sweep.done, key=lambda trial: trial["trial"])
    if not done:
        raise UserError(f"{path}: no trial of the sweep is done yet")
    return [read_run(str(sweep.run(one)), validated=one["step"]) for one in done]


def read_run(path: str, *, validated: int | None = None) -> Run:
    """One run, labelled by its model.

    Args:
      validated: a step whose validation stands for a score card of that split.

    Raises UserError for a path that is not a run, or one of another format, or that
    holds no score card.
    """
    directory = RunDirectory(path)
    if not directory.path.is_dir():
        raise UserError(f"{path} is not a directory: name one that train.py made")
    if not directory.exists:
        raise UserError(f"{path} is not a run directory: it has no config.json")
    directory.check_format()
    config = read_object(directory.path / "config.json", "model", "task")
    about = directory.path / "about.json"
    scored = read_scored(directory.path)
    metrics = read_metrics(directory.path / "metrics.jsonl")
    if validated is not None and "validation" not in scored:
        scored |= of_validation(metrics, validated)
    if not scored:
        raise UserError(
            f"{path} holds no score card: run eval.py --workdir={path} first"
        )
    return Run(
        path=directory.path,
        label=config["model"]["name"],
        config=config,
        about=read_object(about) if about.exists() else {},
        metrics=metrics,
        scored=scored,
    )


def of_validation(metrics: dict[str, list[dict]], step: int) -> dict[str, Scored]:
    """What was logged of the validation at a step, or of the newest, as a card."""
    lines = metrics.get("validation", [])
    line = next((one for one in lines if one["step"] == step), (lines or [None])[-1])
    if line is None:
        return {}
    scores = {
        name: {"value": value}
        for name, value in line.items()
        if name not in ("step", "split") and value is not None
    }
    card = {"split": "validation", "step": line["step"], "scores": scores}
    return {"validation": Scored(card, [], None)}


def read_scored(path: Path) -> dict[str, Scored]:
    """The latest step that was scored, by split."""
    cards: dict[str, tuple[Path, dict]] = {}
    for file in sorted((path / "eval").glob("*.json")):
        card = read_object(file, "split", "step", "scores")
        if card["step"] >= cards.get(card["split"], (file, card))[1]["step"]:
            cards[card["split"]] = file, card
    return {split: _scored(path, *found) for split, found in cards.items()}


def _scored(path: Path, file: Path, card: dict) -> Scored:
    name = file.stem  # with "-average-N" where it is a mean of checkpoints
    attention = path / "plots" / f"attention-{name}.json"
    return Scored(
        card=card,
        samples=read_lines(path / "samples" / f"{name}.jsonl"),
        attention=read_object(attention) if attention.exists() else None,
        file=file,
    )


def read_metrics(path: Path) -> dict[str, list[dict]]:
    """What was logged, by split."""
    metrics: dict[str, list[dict]] = {}
    for line in read_lines(path):
        metrics.setdefault(line["split"], []).append(line)
    return metrics


def read_lines(path: Path) -> list[dict]:
    """One object a line; a line that is not whole, as of a live run, is left out."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path} is damaged: line {number} is no object")
    return rows


def read_object(path: Path, *keys: str) -> dict:
    """A JSON file. Raises UserError where it is none or lacks one of the keys."""
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path} is not a file of ours: it has no {key!r}")
    return content
