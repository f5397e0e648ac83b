"""Folder of a comparison: its plan, and the sweeps of each budget and architecture.

compare.json                   what was asked, and the plan
BUDGET/search/MODEL/           sweep over the points of the search space
BUDGET/final/MODEL/            sweep over fresh seeds of the best point
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from analysis.compare.plan import (
    BudgetPlan,
    ModelPlan,
    Plan,
    Request,
    asked_document,
    open_space,
)
from analysis.report.sweep_results import SweepResults, is_sweep, open_sweep
from sweeps.launch import MAX_CHARACTERS
from sweeps.storage import run_name
from training.run_dir import RunDirectory, describe_differences
from utils.errors import UserError
from utils.paths import resolve_path

FILE = "compare.json"
VERSION = 1
# Keys of what was asked that do not count, or are compared as configs.
NOT_COMPARED = ("config", "configs", "overrides")


@dataclasses.dataclass(frozen=True)
class ComparisonFolder:
    """Paths and results of a comparison, in a folder or a bucket."""

    path: Path | epath.Path

    @classmethod
    def open(cls, path: str | Path | epath.Path) -> "ComparisonFolder":
        """Opens a path. Raises UserError where something else is."""
        folder = cls(resolve_path(path))
        if folder.path.exists() and not folder.exists:
            if not folder.path.is_dir():
                raise UserError(f"{path} is a file: choose another --workdir")
            names = [file.name for file in folder.path.iterdir()]
            if any(not name.endswith(".draft") for name in names):
                raise UserError(
                    f"{path} is not empty and not the folder of a comparison: choose "
                    "another --workdir"
                )
        return folder

    @property
    def exists(self) -> bool:
        """Whether a comparison was started here."""
        return (self.path / FILE).exists()

    def read_plan(self) -> Plan:
        """Reads the plan. Raises UserError where there is none, or a damaged one."""
        if not self.exists:
            raise UserError(f"{self.path} is not a comparison: it has no {FILE}")
        try:
            document = json.loads((self.path / FILE).read_text(encoding="utf8"))
            if document.pop("version") != VERSION:
                raise UserError(f"{self.path} was made by another version of this code")
            return Plan.from_dict(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path / FILE} is damaged: {error}") from error

    def check_request(self, plan: Plan, request: Request) -> None:
        """Raises UserError if the folder's comparison is another than the request."""
        spaces = {model: open_space(request, model) for model in request.models}
        asked, stored = asked_document(request, spaces), plan.asked
        differences = []
        for model in {**asked["configs"], **stored["configs"]}:
            both = [document["configs"].get(model, {}) for document in (stored, asked)]
            differences += describe_differences(*both)
        left = [
            {k: v for k, v in document.items() if k not in NOT_COMPARED}
            for document in (stored, asked)
        ]
        differences = describe_differences(*left) + differences
        if differences:
            text = "; ".join(differences)[:MAX_CHARACTERS]
            raise UserError(
                f"{self.path} holds another comparison: {text}. Choose another "
                "--workdir, or give the same arguments to resume"
            )

    def write_plan(self, plan: Plan) -> None:
        """Writes the plan of a new comparison."""
        document = {"version": VERSION, **plan.to_dict()}
        RunDirectory(self.path).write_json(FILE, document)

    def search(self, budget: BudgetPlan, model: ModelPlan) -> Path | epath.Path:
        """Returns the folder of the sweep over a model's points."""
        return self.path / budget.name / "search" / model.model

    def final(self, budget: BudgetPlan, model: ModelPlan) -> Path | epath.Path:
        """Returns the folder of the sweep over the seeds of a model's best point."""
        return self.path / budget.name / "final" / model.model

    def winner(self, budget: BudgetPlan, model: ModelPlan) -> dict:
        """Returns the best trial of a search that has ended.

        Raises:
          UserError: no trial has finished.
        """
        results = open_sweep(self.search(budget, model))
        if results.best is None:
            raise UserError(f"{results.path}: no trial has finished")
        return results.best

    def final_runs(self, budget: BudgetPlan, model: ModelPlan) -> list:
        """Returns the run directories of the seeds that have finished."""
        path = self.final(budget, model)
        if not is_sweep(path):
            return []
        done = sorted(open_sweep(path).done, key=lambda trial: trial["trial"])
        return [path / run_name(trial["trial"]) for trial in done]

    def sweeps(self, plan: Plan) -> Iterator[SweepResults]:
        """Yields the sweeps that have been started."""
        for budget in plan.budgets:
            for model in budget.models:
                for path in (self.search(budget, model), self.final(budget, model)):
                    if is_sweep(path):
                        yield open_sweep(path)
