"""Launch of a sweep from its command line: the plan, the study and the workers."""

import dataclasses
from typing import Any

from sweeps.devices import allocate, this_machine
from sweeps.objective import Objective
from sweeps.search_space import Space, read_space
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_configs import TrialConfigs, format_point
from sweeps.trial_process import FINISHED, STOPPED
from training.signals import StopRequested, graceful_stop
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """Trials of a sweep, before anything is run."""

    configs: TrialConfigs
    space: Space
    num_trials: int

    def table(self) -> str:
        """Formats one line a trial; values that TPE will sample are shown as ranges."""
        points = (self.space.point(number) for number in range(self.num_trials))
        rows = (f"{n:>5}  {format_point(point)}" for n, point in enumerate(points))
        return "\n".join([*rows, f"{self.num_trials} trials"])

    def to_dict(self) -> dict:
        """Returns the description as JSON: config and space, which must not change."""
        return {"config": self.configs.to_dict(), "space": self.space.to_dict()}


def make_plan(
    config: str, overrides: dict[str, Any], space: str, trials: int | None
) -> SweepPlan:
    """Plans a sweep from the flags of sweep.py.

    Raises:
      UserError: the space does not fit the config, or has too few points.
    """
    search_space = read_space(space)
    configs = TrialConfigs.from_flag(config, overrides)
    configs.check(search_space)
    if search_space.pruning is not None:
        cfg = configs.config({})
        search_space.pruning.rung_bounds(num_steps(cfg), first_validation(cfg))
    return SweepPlan(configs, search_space, search_space.num_trials(trials))


def run(
    plan: SweepPlan, workdir: str, workers: int, url: str | None, population: int = 1
) -> int:
    """Runs the trials of a sweep that are left; returns the exit code.

    Args:
      url: URL of a database; None: a file in `workdir`.
      population: number of trials that a worker trains as one program.
    """
    if population < 1:
        raise UserError(f"--population={population} must be at least 1")
    cfg = plan.configs.config({})
    from experiment import validate  # takes seconds to import

    validate.check_keys(cfg)
    plan.configs.check(plan.space, validate.check_keys)
    if population > 1:
        validate.validate_population(cfg)
    with graceful_stop() as stopped:
        directory = SweepDirectory(workdir)
        directory.check()
        allocations = allocate(this_machine(), workers)
        # These take seconds to import.
        from experiment.build import get_task_class
        from sweeps.optuna_adapter import make_pruner
        from sweeps.progress import ProgressTable, final_table
        from sweeps.storage import RetryingStorage, open_storage, redact_url
        from sweeps.study import Study
        from sweeps.worker import SweepWorker

        task = get_task_class(cfg.task)
        metric = cfg.keep.metric or task.default_metric(cfg)
        objective = Objective.from_space(plan.space, metric, task.directions(cfg))
        directory.init(plan.to_dict())
        try:
            study = Study(
                lambda: open_storage(url, directory.journal),
                workdir.rstrip("/") if url else "sweep",  # a database may hold several
                plan.space,
                plan.num_trials,
                objective,
                plan.to_dict(),
                make_pruner(plan.space.pruning, num_steps(cfg), first_validation(cfg)),
                RetryingStorage(redact_url(url or str(directory.journal)), stopped),
            )
            at_once = len(allocations) * population
            table = ProgressTable(objective.metric, num_steps(cfg), at_once)
            parts = study, plan.configs, directory, allocations, table, stopped
            code = SweepWorker(*parts, population=population).run()
            if code == FINISHED:
                print(final_table(study.trials(), objective.metric))
            return code
        except StopRequested:  # while the storage was unreachable
            return STOPPED


def num_steps(cfg) -> int | None:
    """Returns the steps of a trial; None if they depend on the corpus's size."""
    return None if cfg.epochs else cfg.steps


def first_validation(cfg) -> int:
    """Returns the step of a trial's first validation."""
    return cfg.every.eval or cfg.steps
