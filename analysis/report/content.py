"""Content of a report, computed once for all of its formats."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from analysis.report.charts import Chart
from analysis.report.comparison import (
    Comparison,
    Sample,
    System,
    SystemPair,
    compare_systems,
    device,
    group_by_seed,
)
from analysis.report.label_tables import LabelSample, LabelTables
from analysis.report.runs import Run, axes, read_runs
from analysis.report.score_cards import read_object
from analysis.report.sweep_results import SweepResults, is_sweep, open_sweep
from analysis.report.tables import COSTS, Row, learning_curves, score_rows
from utils.errors import UserError
from utils.paths import canonical_path

CURVES = (
    *("loss", "bleu", "accuracy", "f1", "official_f1", "micro_f1", "pearson"),
    *("intent_accuracy", "masked_accuracy", "next_sentence_accuracy"),
    *("rougeL", "token_f1", "answer_accuracy", "entity_f1"),
)
CONTEXT_FILE = "effective-context.json"  # of analysis/effective_context


def curve_names(runs: Sequence[Run]) -> list[str]:
    """Returns CURVES, and the scores by which runs select checkpoints."""
    names = dict.fromkeys(CURVES)
    for run in runs:
        metrics = run.config.get("eval", {}).get("metrics") or ()
        names |= dict.fromkeys(metrics[:1])
        if metric := run.config.get("keep", {}).get("metric"):
            names[metric] = None
    return [*names]


@dataclasses.dataclass(frozen=True)
class EffectiveContext:
    """Effective context lengths of a run, in tokens."""

    run: int  # its index in the report
    lengths: dict[str, str]  # by ratio r; "at least" where more may still help
    first: tuple[int, float]  # shortest context in tokens, and the loss with it
    last: tuple[int, float]  # the same for the longest


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that a report shows."""

    comparison: Comparison
    sweeps: tuple[SweepResults, ...] = ()  # those whose trials are among the runs
    contexts: tuple[EffectiveContext, ...] = ()
    is_tested: bool = True  # whether pairs of systems are tested

    @classmethod
    def from_paths(
        cls, paths: Sequence[str], files: Sequence[str] = (), *, is_tested: bool = True
    ) -> "Content":
        """Reads directories of runs and sweeps, and files of effective contexts.

        Raises UserError for another path, and for runs that cannot be compared.
        """
        comparison = Comparison.from_runs(read_runs(paths))
        sweeps = tuple(open_sweep(path) for path in paths if is_sweep(path))
        contexts = read_contexts(comparison.runs, files)
        return cls(comparison, sweeps, tuple(contexts), is_tested)

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.comparison.runs

    @property
    def unit(self) -> str:
        """Unit that the logs of the runs count, such as tokens."""
        return self.runs[0].unit

    @functools.cached_property
    def rows(self) -> list[Row]:
        return score_rows(self.comparison)

    @property
    def scores(self) -> list[Row]:
        """The columns of the table that hold scores."""
        return [row.select(lambda title: title not in COSTS) for row in self.rows]

    @property
    def costs(self) -> list[Row]:
        """The columns of the table that hold costs, without the baselines."""
        runs = [row for row in self.rows if row.run is not None]
        return [row.select(lambda title: title in COSTS) for row in runs]

    @functools.cached_property
    def systems(self) -> list[System]:
        return group_by_seed(self.comparison)

    @functools.cached_property
    def pairs(self) -> list[SystemPair]:
        """Paired tests between the systems."""
        return compare_systems(self.systems) if self.is_tested else []

    @functools.cached_property
    def labels(self) -> LabelTables | None:
        """Tables of labels or tags; None for other tasks."""
        return LabelTables.from_comparison(self.comparison)

    @property
    def samples(self) -> list[Sample] | list[LabelSample]:
        """Examples with the outputs of all runs."""
        return self.labels.samples if self.labels else self.comparison.samples

    @functools.cached_property
    def charts(self) -> list[Chart]:
        """Learning curves against each of `axes`."""
        return [
            chart
            for name in curve_names(self.runs)
            for axis in axes(self.unit)
            if (chart := learning_curves(self.runs, name, axis))
        ]

    def warnings(self) -> list[str]:
        """Lists why numbers are not comparable, and trials that are left out."""
        return self.comparison.warnings() + [
            f"{missing} of {len(sweep.trials)} trials of {sweep.path} did not finish "
            "and are left out"
            for sweep in self.sweeps
            if (missing := len(sweep.trials) - len(sweep.done))
        ]

    @property
    def has_baselines(self) -> bool:
        return any(row.run is None for row in self.rows)

    @property
    def has_seeds(self) -> bool:
        """Whether a system has several runs."""
        return len(self.systems) < len(self.runs)

    @property
    def origins(self) -> list[dict[str, str]]:
        return [run_origin(run) for run in self.runs]


def run_origin(run: Run) -> dict[str, str]:
    """Returns directory, corpus, model, seed, commit and device of a run."""
    about = run.about
    corpus = about.get("corpus", {})
    commit = about.get("commit", "")
    return {
        "directory": str(run.path),
        "corpus": f"{run.config['data']['name']} {corpus.get('version', '')}".strip(),
        "model": run.config["model"]["name"],
        "seed": str(run.config["seed"]),
        "commit": commit[:12] + (" and changes" if commit.endswith("+") else ""),
        "device": device(run),
        "jax": about.get("versions", {}).get("jax", ""),
    }


def read_contexts(
    runs: Sequence[Run], files: Sequence[str] = ()
) -> list[EffectiveContext]:
    """Reads the effective context lengths of runs, in the order of the runs.

    Args:
      files: effective-context.json files or their folders; files in the directory of
        a run and in the one above it are read as well.

    Raises UserError for a file that does not exist.
    """
    paths = []
    for name in files:
        path = Path(name).expanduser()
        path = path / CONTEXT_FILE if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"--context={path}: no such file")
        paths.append(path)
    for run in runs:
        folders = run.path, run.path / "plots", run.path.parent
        paths += [folder / CONTEXT_FILE for folder in folders]
    numbers = {canonical_path(run.path): number for number, run in enumerate(runs)}
    contexts: dict[int, EffectiveContext] = {}
    for path in dict.fromkeys(path for path in paths if path.exists()):
        summary = read_object(path, "lengths", "runs")
        for name, result in summary["runs"].items():
            number = numbers.get(canonical_path(Path(name)))
            if number is None or number in contexts:
                continue
            by_ratio = {
                ratio: f"{'at least ' * one['is_longest']}{one['length']}"
                for ratio, one in result["recl"].items()
            }
            ends = ((summary["lengths"][i], result["loss"][i]) for i in (0, -1))
            contexts[number] = EffectiveContext(number, by_ratio, *ends)
    return [contexts[number] for number in sorted(contexts)]
