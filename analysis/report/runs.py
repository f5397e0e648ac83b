"""Run directories as plain values: their configs, logs, training costs and scores."""

import collections
import dataclasses
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.report.score_cards import (
    ScoreCard,
    newest_cards,
    read_card,
    read_lines,
    read_object,
)
from analysis.report.sweep_results import is_sweep, open_sweep
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import canonical_path

UNITS = ("tokens", "words", "examples")  # what the log of a task counts


def axes(unit: str) -> dict[str, str]:
    """Returns the x axes of learning curves, each with its title.

    Args:
      unit: what the log counts, one of UNITS.
    """
    return {
        "step": "steps",
        unit: f"training {unit}",
        "seconds": "seconds of training",
        "flops": "training FLOPs",
    }


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """Cumulative cost of a run by step, from 0 on.

    A line of the log has tokens/s or another of UNITS, FLOP/s and the seconds of
    training so far. Counts are those rates times the seconds since the previous line,
    summed; between two lines they are interpolated.
    """

    step: tuple[float, ...]
    counts: tuple[float, ...]  # of the unit
    seconds: tuple[float, ...]
    flops: tuple[float, ...] | None  # None: the log has no rate, as on unknown devices

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
            cumulative(f"{find_unit(lines)}_per_second"),
            tuple(seconds.tolist()),
            cumulative("flops_per_second") if has_flops else None,
        )

    def at(self, step: float, axis: str) -> float | None:
        """Returns the cost up to a step on one of `axes`; None where it is unknown."""
        values = self.counts if axis in UNITS else getattr(self, axis)
        if values is None or step > self.step[-1]:
            return None
        return float(np.interp(step, self.step, values))


def find_unit(lines: Sequence[dict]) -> str:
    """Returns which of UNITS the lines of a training log count."""
    found = (unit for unit in UNITS if lines and f"{unit}_per_second" in lines[0])
    return next(found, UNITS[0])


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run directory."""

    path: Path
    label: str  # a name that is unique among the runs of a report
    config: dict
    about: dict
    metrics: dict[str, list[dict]]  # the lines of metrics.jsonl by split, in order
    results: dict[str, ScoreCard]  # by split, of the latest step that was scored

    @property
    def model(self) -> str:
        return self.config["model"]["name"]

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
    def unit(self) -> str:
        """One of UNITS: what the log counts."""
        return find_unit(self._train_lines)

    def median(self, name: str) -> float | None:
        """Returns the median without the first line, which includes compilation."""
        values = [line.get(name) for line in self._train_lines[1:]]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    @property
    def peak_memory(self) -> int | None:
        """The largest peak memory that any line logs, in bytes."""
        sizes = [line.get("peak_memory_bytes", 0) for line in self._train_lines]
        return max(sizes, default=0) or None

    @functools.cached_property
    def cost(self) -> TrainingCost | None:
        return TrainingCost.from_log(self._train_lines)

    def cost_at(self, step: int | None, axis: str) -> float | None:
        """Returns the cost up to a step on one of `axes`; None where it is unknown."""
        if axis == "step":
            return step
        return self.cost.at(step, axis) if self.cost else None

    @property
    def _train_lines(self) -> list[dict]:
        return self.metrics.get("train", [])


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Reads runs, and the finished trials of sweeps; gives each a unique label.

    Raises UserError for a path that is neither, or that is given twice, and for a sweep
    without a finished trial.
    """
    runs = []
    for path in paths:
        if not is_sweep(path):
            runs.append(read_run(path))
            continue
        sweep = open_sweep(path)
        if not sweep.done:
            raise UserError(f"{path}: no trial of the sweep has finished yet")
        for trial in sorted(sweep.done, key=lambda trial: trial["trial"]):
            run = str(sweep.run(trial))
            runs.append(read_run(run, validation_step=trial["step"]))
    counts = collections.Counter(canonical_path(run.path) for run in runs)
    for run in runs:
        if counts[canonical_path(run.path)] > 1:
            raise UserError(f"{run.path} is given twice: name each run once")
    for suffix in (lambda run: canonical_path(run.path).name, lambda run: run.path):
        labels = collections.Counter(run.label for run in runs)
        runs = [
            dataclasses.replace(run, label=f"{run.model} ({suffix(run)})")
            if labels[run.label] > 1
            else run
            for run in runs
        ]
    return runs


def read_run(path: str, *, validation_step: int | None = None) -> Run:
    """Reads one run, labelled by its model.

    Args:
      validation_step: uses this step's line of the log, or the last one, as the
        score card of the validation split, where there is no such card.

    Raises UserError for what is not a run of this format with a score card.
    """
    directory = RunDirectory(path)
    if not directory.path.is_dir():
        raise UserError(f"{path} is not a directory: name one that train.py made")
    if not directory.exists:
        raise UserError(f"{path} is not a run directory: it has no config.json")
    directory.check_format()
    config = read_object(directory.path / "config.json", "model", "task")
    about = directory.path / "about.json"
    metrics: dict[str, list[dict]] = {}
    for line in read_lines(directory.path / "metrics.jsonl"):
        if not {"split", "step"} <= line.keys():
            raise UserError(
                f"{path}/metrics.jsonl is damaged: {line} lacks its split or step"
            )
        metrics.setdefault(line["split"], []).append(line)
    cards = newest_cards(directory.path)
    results = {split: read_card(file) for split, file in cards.items()}
    lines = metrics.get("validation")
    if validation_step is not None and lines and "validation" not in results:
        steps = [line["step"] for line in lines]
        line = lines[steps.index(validation_step) if validation_step in steps else -1]
        scores = {
            name: {"value": value}
            for name, value in line.items()
            if name not in ("step", "split") and value is not None
        }
        content = {"split": "validation", "step": line["step"], "scores": scores}
        results["validation"] = ScoreCard(directory.path, content)
    if not results:
        raise UserError(f"{path} has no score card: run eval.py --workdir={path} first")
    return Run(
        directory.path,
        label=config["model"]["name"],
        config=config,
        about=read_object(about) if about.exists() else {},
        metrics=metrics,
        results=results,
    )
