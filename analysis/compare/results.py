"""Results of comparisons, read from their folders: trials, runs, scores and costs."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from analysis.compare.folder import ComparisonFolder
from analysis.compare.plan import BudgetPlan, ModelPlan, Plan
from analysis.compare.sizes import QUANTITIES
from analysis.report.runs import Run, read_run
from analysis.report.score_cards import ScoreCard, newest_cards
from analysis.report.sweep_results import SweepResults, is_sweep, open_sweep
from analysis.report.tables import curve_points
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelResults:
    """Trials and runs of one architecture at one budget.

    Attributes:
      runs: scored runs of fresh seeds.
    """

    plan: ModelPlan
    search: SweepResults
    runs: tuple[Run, ...]
    split: str

    @property
    def name(self) -> str:
        return self.plan.model

    @property
    def cards(self) -> list[ScoreCard]:
        return [run.results[self.split] for run in self.runs]

    @property
    def best(self) -> dict:
        """The best trial of the search."""
        return self.search.best

    @property
    def trial_scores(self) -> list[float]:
        """Validation scores of the trials in order; nan where one has not finished."""
        by_trial = {trial["trial"]: trial["value"] for trial in self.search.done}
        return [by_trial.get(n, math.nan) for n in range(len(self.plan.points))]

    def scores(self, metric: str) -> list[float]:
        """Returns the score of each run on the split."""
        return [card.values[metric] for card in self.cards if metric in card.values]

    def best_validation(self, metric: str, sign: int) -> float:
        """Returns the mean over the runs of the best validation score."""
        curves = [curve_points(run, metric, "step") for run in self.runs]
        best = [max(sign * y for _, y in curve) for curve in curves if curve]
        return sign * statistics.fmean(best) if best else math.nan


@dataclasses.dataclass(frozen=True)
class BudgetResults:
    """Results of all architectures at one budget."""

    plan: BudgetPlan
    models: tuple[ModelResults, ...]

    @property
    def runs(self) -> list[Run]:
        return [run for model in self.models for run in model.runs]


@dataclasses.dataclass(frozen=True)
class TrialRun:
    """Run directory of a trial, with its line in the results of its sweep."""

    path: Path
    name: str
    trial: dict


@dataclasses.dataclass(frozen=True)
class ComparisonResults:
    """Results of a comparison at one budget or several, on one corpus."""

    folder: ComparisonFolder
    plan: Plan
    budgets: tuple[BudgetResults, ...]

    @classmethod
    def from_folder(cls, path: str | Path) -> "ComparisonResults":
        """Reads what has been trained and scored.

        Raises:
          UserError: an architecture has no scored run at any budget.
        """
        folder = ComparisonFolder.open(path)
        plan = folder.read_plan()
        split = plan.asked["split"]
        budgets = [read_budget(folder, budget, split) for budget in plan.budgets]
        finished = tuple(budget for budget in budgets if budget is not None)
        if not finished:
            raise UserError(
                f"{path} has no budget at which all architectures are scored on "
                f"{split}: run the comparison again to resume it"
            )
        return cls(folder, plan, finished)

    @property
    def split(self) -> str:
        return self.plan.asked["split"]

    @property
    def metric(self) -> str:
        return self.plan.metric.name

    @property
    def sign(self) -> int:
        """1 if larger scores are better, or -1."""
        return 1 if self.plan.metric.direction == "max" else -1

    @property
    def corpus(self) -> str:
        return self.budgets[0].models[0].runs[0].config["data"]["name"]

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.budgets[0].models]

    @property
    def is_complete(self) -> bool:
        """Whether all budgets and seeds have been trained and scored."""
        wanted = sum(len(m.seeds) for b in self.plan.budgets for m in b.models)
        return sum(len(budget.runs) for budget in self.budgets) == wanted

    def format_budget(self, target: float) -> str:
        """Formats a budget with its unit."""
        return QUANTITIES[self.plan.asked["equal"]].format_cost(target)

    @property
    def sweeps(self) -> list[SweepResults]:
        return list(self.folder.sweeps(self.plan))

    @functools.cached_property
    def trial_runs(self) -> list[TrialRun]:
        """Run directories of all sweeps, in the order of the plan."""
        return [
            TrialRun(sweep.run(trial), self._name(sweep, trial), trial)
            for sweep in self.sweeps
            for trial in sweep.trials
        ]

    def _name(self, sweep: SweepResults, trial: dict) -> str:
        """Returns the path of a run below the folder of the comparison."""
        return str(sweep.run(trial).relative_to(self.folder.path))

    @property
    def asked_text(self) -> str:
        """Describes what was asked in one line."""
        asked = self.plan.asked
        trials = ", ".join(f"{n} of {model}" for model, n in asked["trials"].items())
        return (
            f"Equal {asked['equal']}, by {asked['vary']}; trials: {trials}; "
            f"{asked['seeds']} seeds of the best point, scored once on {asked['split']}"
        )


def read_budget(
    folder: ComparisonFolder, budget: BudgetPlan, split: str
) -> BudgetResults | None:
    """Reads a budget; returns None where an architecture has no scored run."""
    models = []
    for model in budget.models:
        search = folder.search(budget, model)
        paths = [
            path
            for path in folder.final_runs(budget, model)
            if split in newest_cards(path)
        ]
        if not (is_sweep(search) and paths):
            return None
        runs = tuple(label_run(read_run(str(path)), model.model) for path in paths)
        models.append(ModelResults(model, open_sweep(search), runs, split))
    return BudgetResults(budget, tuple(models))


def label_run(run: Run, model: str) -> Run:
    """Returns the run with the label `MODEL, seed N`."""
    return dataclasses.replace(run, label=f"{model}, seed {run.config['seed']}")


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and sample standard deviation, None for a single value."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan, None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return statistics.fmean(known), deviation
