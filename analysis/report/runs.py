"""Run directories as plain values: their configs, logs, training costs and scores."""

import collections
import dataclasses
import functools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.report.sweep_results import is_sweep, open_sweep
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import canonical_path

AXES = {  # x axes of learning curves, each with its title; fields of TrainingCost
    "step": "steps",
    "tokens": "training tokens",
    "seconds": "seconds of training",
    "flops": "training FLOPs",
}


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """Cumulative cost of a run by step, from 0 on.

    A line of the log has tokens/s, FLOP/s and the seconds of training so far. Counts
    are those rates times the seconds since the previous line, summed; between two
    lines they are interpolated.

    Attributes:
      flops: None where the log has no rate, as on devices of unknown peak FLOP/s.
    """

    step: tuple[float, ...]
    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    flops: tuple[float, ...] | None

    @classmethod
    def from_log(cls, lines: Sequence[dict]) -> "TrainingCost | None":
        """Sums up the lines of the training split; None where there are none."""
        if not lines:
            return None
        seconds = np.asarray([0.0, *(line["seconds"] for line in lines)])
        intervals = np.diff(seconds)

        def cumulative(name: str) -> tuple[float, ...]:
            rates = np.asarray([line[name] for line in lines], float)
            return (0.0, *np.cumsum(rates * intervals).tolist())

        has_flops = all(line.get("flops_per_second") is not None for line in lines)
        return cls(
            (0.0, *(float(line["step"]) for line in lines)),
            cumulative("tokens_per_second"),
            tuple(seconds.tolist()),
            cumulative("flops_per_second") if has_flops else None,
        )

    def at(self, step: float, axis: str) -> float | None:
        """Returns the cost up to a step on one of AXES; None where it is unknown."""
        if axis == "step":
            return step
        values = getattr(self, axis)
        if values is None or step > self.step[-1]:
            return None
        return float(np.interp(step, self.step, values))


@dataclasses.dataclass(frozen=True)
class EvalResult:
    """The evaluation of a run on a split, as `eval.py` wrote it.

    Attributes:
      card: the score card.
      samples: sentences with their hypotheses; empty for a language model.
      attention: the attention map of a sample, if there is one.
      file: path of the card; None where a line of the log replaces it.
    """

    card: dict
    samples: list[dict]
    attention: dict | None
    file: Path | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run directory.

    Attributes:
      label: a name that is unique among the runs of a report.
      metrics: the lines of metrics.jsonl by split, in order.
      results: by split, of the latest step that was scored.
    """

    path: Path
    label: str
    config: dict
    about: dict
    metrics: dict[str, list[dict]]
    results: dict[str, EvalResult]

    @property
    def steps(self) -> int | None:
        """The last logged step of training."""
        return self._train_lines[-1]["step"] if self._train_lines else None

    @property
    def planned_steps(self) -> int | None:
        """The number of steps of the whole training; None where it is unknown."""
        if self.about.get("steps"):
            return self.about["steps"]
        return None if self.config.get("epochs") else self.config["steps"]

    @property
    def seconds(self) -> float | None:
        """Seconds of training, those before interruptions included."""
        return self._train_lines[-1]["seconds"] if self._train_lines else None

    @property
    def tokens_per_second(self) -> float | None:
        """The median, without the first line, which includes compilation."""
        speeds = [line["tokens_per_second"] for line in self._train_lines[1:]]
        return statistics.median(speeds) if speeds else None

    @property
    def mfu(self) -> float | None:
        """The median share of the devices' peak FLOP/s."""
        shares = [line.get("mfu") for line in self._train_lines[1:]]
        known = [share for share in shares if share is not None]
        return statistics.median(known) if known else None

    @property
    def peak_memory(self) -> int | None:
        """The largest peak memory that any line logs, in bytes."""
        sizes = [line.get("peak_memory_bytes", 0) for line in self._train_lines]
        return max(sizes, default=0) or None

    @functools.cached_property
    def cost(self) -> TrainingCost | None:
        """Tokens, seconds and FLOPs of training by step; None: nothing was logged."""
        return TrainingCost.from_log(self._train_lines)

    @property
    def flops(self) -> float | None:
        """FLOPs of the whole training; None where they are unknown."""
        return self.cost.at(self.steps, "flops") if self.cost else None

    @property
    def _train_lines(self) -> list[dict]:
        return self.metrics.get("train", [])


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Reads run directories, and gives each run a unique label.

    The directory of a sweep yields the runs of its finished trials.

    Raises UserError for a path that is neither a scored run nor a sweep, or that is
    given twice.
    """
    runs = []
    for path in paths:
        runs += read_trials(path) if is_sweep(path) else [read_run(path)]
    counts = collections.Counter(canonical_path(run.path) for run in runs)
    for run in runs:
        if counts[canonical_path(run.path)] > 1:
            raise UserError(f"{run.path} is given twice: name each run once")
    for suffix in (lambda run: canonical_path(run.path).name, lambda run: run.path):
        labels = collections.Counter(run.label for run in runs)
        runs = [
            dataclasses.replace(
                run, label=f"{run.config['model']['name']} ({suffix(run)})"
            )
            if labels[run.label] > 1
            else run
            for run in runs
        ]
    return runs


def read_trials(path: str) -> list[Run]:
    """Reads the finished runs of a sweep, in the order of its trials.

    Raises UserError where none has finished.
    """
    sweep = open_sweep(path)
    done = sorted(sweep.done, key=lambda trial: trial["trial"])
    if not done:
        raise UserError(f"{path}: no trial of the sweep has finished yet")
    return [
        read_run(str(sweep.run(trial)), validation_step=trial["step"]) for trial in done
    ]


def read_run(path: str, *, validation_step: int | None = None) -> Run:
    """Reads one run, labelled by its model.

    Args:
      validation_step: uses this step's line of the log as the score card of the
        validation split, where there is no such card.

    Raises UserError for a path that is not a run, or a run of another format, or one
    without a score card.
    """
    directory = RunDirectory(path)
    if not directory.path.is_dir():
        raise UserError(f"{path} is not a directory: name one that train.py made")
    if not directory.exists:
        raise UserError(f"{path} is not a run directory: it has no config.json")
    directory.check_format()
    config = read_object(directory.path / "config.json", "model", "task")
    about = directory.path / "about.json"
    results = read_results(directory.path)
    metrics = read_metrics(directory.path / "metrics.jsonl")
    if validation_step is not None and "validation" not in results:
        results |= validation_result(metrics, validation_step)
    if not results:
        raise UserError(f"{path} has no score card: run eval.py --workdir={path} first")
    return Run(
        path=directory.path,
        label=config["model"]["name"],
        config=config,
        about=read_object(about) if about.exists() else {},
        metrics=metrics,
        results=results,
    )


def validation_result(
    metrics: dict[str, list[dict]], step: int
) -> dict[str, EvalResult]:
    """Converts the logged validation of a step, or the last one, to a result."""
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
    return {"validation": EvalResult(card, [], None)}


def read_results(path: Path) -> dict[str, EvalResult]:
    """Reads the evaluation of the latest scored step, by split."""
    cards: dict[str, tuple[Path, dict]] = {}
    for file in sorted((path / "eval").glob("*.json")):
        card = read_object(file, "split", "step", "scores")
        if card["step"] >= cards.get(card["split"], (file, card))[1]["step"]:
            cards[card["split"]] = file, card
    return {split: _read_result(path, *card) for split, card in cards.items()}


def _read_result(path: Path, file: Path, card: dict) -> EvalResult:
    name = file.stem  # with "-average-N" for averaged checkpoints
    attention = path / "plots" / f"attention-{name}.json"
    return EvalResult(
        card=card,
        samples=read_lines(path / "samples" / f"{name}.jsonl"),
        attention=read_object(attention) if attention.exists() else None,
        file=file,
    )


def read_metrics(path: Path) -> dict[str, list[dict]]:
    """Reads the lines of a log by split."""
    metrics: dict[str, list[dict]] = {}
    for line in read_lines(path):
        metrics.setdefault(line["split"], []).append(line)
    return metrics


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
