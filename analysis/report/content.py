"""All that a report says of some runs, worked out once for every form of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from analysis.effective_context.contexts import Context, contexts
from analysis.report.comparison import Comparison, Sample, device
from analysis.report.curves import Chart, learning_curves
from analysis.report.runs import Run, read_runs
from analysis.report.score_table import COSTS, Row, score_rows
from analysis.report.sweep_results import SweepResults, is_sweep, open_sweep
from analysis.report.systems import Pair, System, pairs, systems
from analysis.report.training_cost import AXES

CURVES = {"loss": "validation loss, nats a token", "bleu": "validation BLEU"}


@dataclasses.dataclass(frozen=True)
class Content:
    """What a report says.

    Attributes:
      sweeps: of which runs are trials.
      contexts: effective context lengths, where they were computed.
      is_tested: whether pairs of systems are tested.
    """

    comparison: Comparison
    sweeps: tuple[SweepResults, ...] = ()
    contexts: tuple[Context, ...] = ()
    is_tested: bool = True

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        context_files: Sequence[str] = (),
        *,
        is_tested: bool = True,
    ) -> "Content":
        """Of run directories and sweeps' directories.

        Raises UserError for what is neither, or does not compare.
        """
        comparison = Comparison.of(read_runs(paths))
        sweeps = tuple(open_sweep(path) for path in paths if is_sweep(path))
        found = contexts(comparison.runs, context_files)
        return cls(comparison, sweeps, tuple(found), is_tested)

    @property
    def runs(self) -> tuple[Run, ...]:
        """In the order they were named."""
        return self.comparison.runs

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The table of scores."""
        return score_rows(self.comparison)

    @property
    def scores(self) -> list[Row]:
        """The part of the table that tells how good the runs are."""
        return [_part(row, lambda title: title not in COSTS) for row in self.rows]

    @property
    def costs(self) -> list[Row]:
        """The part that tells what they took; baselines take nothing."""
        rows = [row for row in self.rows if row.run is not None]
        return [_part(row, lambda title: title in COSTS) for row in rows]

    @functools.cached_property
    def systems(self) -> list[System]:
        """Runs that are seeds of one belong together."""
        return systems(self.comparison)

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """Tests between systems."""
        return pairs(self.systems) if self.is_tested else []

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """Sentences side by side."""
        return self.comparison.samples()

    @functools.cached_property
    def differences(self) -> list[tuple[str, list[str]]]:
        """Keys that differ, each with every run's value."""
        return self.comparison.differences()

    @functools.cached_property
    def charts(self) -> list[Chart]:
        """Learning curves against each of AXES."""
        found = [
            learning_curves(self.runs, name, title, axis)
            for name, title in CURVES.items()
            for axis in AXES
        ]
        return [chart for chart in found if chart]

    def warnings(self) -> list[str]:
        """Why some of the numbers do not compare, and what is left out."""
        found = self.comparison.warnings()
        for sweep in self.sweeps:
            if missing := len(sweep.trials) - len(sweep.done):
                found.append(
                    f"{missing} of {len(sweep.trials)} trials of {sweep.path} did not "
                    "come to their end and are left out"
                )
        return found

    @property
    def has_baselines(self) -> bool:
        """Whether rows of the table need no learning."""
        return any(row.run is None for row in self.rows)

    @property
    def has_seeds(self) -> bool:
        """Whether a system has several runs."""
        return len(self.systems) < len(self.runs)

    @property
    def origins(self) -> list[dict[str, str]]:
        """Where each run's numbers come from."""
        return [origin(run) for run in self.runs]


def _part(row: Row, is_wanted: Callable[[str], bool]) -> Row:
    cells = {title: cell for title, cell in row.cells.items() if is_wanted(title)}
    return dataclasses.replace(row, cells=cells)


def origin(run: Run) -> dict[str, str]:
    """Where a run's numbers come from."""
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
