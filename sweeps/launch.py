"""A sweep from its command line: what is planned, then the study and its workers."""

import dataclasses
import threading
from typing import Any

from sweeps.devices import shares, this_machine
from sweeps.objective import Objective
from sweeps.search_space import (
    Distribution,
    Point,
    Space,
    format_distribution,
    read_space,
)
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_configs import Experiment, point_in_words
from training.signals import StopRequested, graceful_stop
from utils.errors import UserError

STOPPED = 75  # exit code: the same command goes on


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be tried.

    Attributes:
      count: of trials.
    """

    experiment: Experiment
    space: Space
    count: int

    def table(self) -> str:
        """One line a trial; of what results will suggest, the range."""
        points = (self.space.point(number) for number in range(self.count))
        rows = (f"{n:>5}  {_in_words(point)}" for n, point in enumerate(points))
        return "\n".join([*rows, f"{self.count} trials"])

    def describe(self) -> dict:
        """As JSON: what may not change while the sweep goes on."""
        return {"config": self.experiment.describe(), "space": self.space.to_dict()}


def make_plan(
    config: str, overrides: dict[str, Any], space: str, trials: int | None
) -> Plan:
    """Raises UserError for what cannot be tried.

    Args:
      config: FILE:MODEL.
      overrides: keys of the command line.
      trials: how many; None: as the space says.
    """
    found = read_space(space)
    experiment = Experiment.of(config, overrides)
    experiment.check(found)
    if found.pruning is not None:
        found.pruning.rung_bounds(*_steps(experiment.config({})))
    return Plan(experiment, found, found.num_trials(trials))


def run(
    plan: Plan, workdir: str, workers: int, url: str | None, population: int = 1
) -> int:
    """Runs what is left of a sweep. Returns the exit code.

    Args:
      population: trials that a worker trains together.
      url: of a database; None: a file in `workdir`.
    """
    if population < 1:
        raise UserError(f"--population={population}: at least 1")
    if population > 1:
        from experiment.validate import (
            validate_population,  # seconds, with what it needs
        )

        validate_population(plan.experiment.config({}))
    with graceful_stop() as stopped:
        directory = SweepDirectory(workdir)
        directory.check()
        devices = shares(this_machine(), workers)
        try:
            name = study_name(workdir, url)
            return _run(plan, directory, devices, name, url, stopped, population)
        except StopRequested:  # while the storage was waited for
            return STOPPED


def _run(plan, directory, devices, name, url, stopped, population) -> int:
    from sweeps.progress import Table, final_table  # seconds, with what they need
    from sweeps.worker import DONE, Sweep

    cfg = plan.experiment.config({})
    objective = objective_of(cfg, plan.space)
    directory.begin(plan.describe())
    study = make_study(plan, directory, objective, name, url, stopped)
    table = Table(objective.metric, steps_of(cfg), len(devices) * population)
    parts = study, plan.experiment, objective, directory, devices, table, stopped
    if population > 1:
        from sweeps.vmapped_trials.worker import PopulationSweep

        sweep = PopulationSweep(*parts, population=population)
    else:
        sweep = Sweep(*parts)
    code = sweep.run()
    if code == DONE:
        print(final_table(study.slots(), objective.metric))
    return code


def study_name(workdir: str, url: str | None) -> str:
    """In a database, which may hold several, as `workdir` is written."""
    return workdir.rstrip("/") if url else "sweep"


def make_study(
    plan: Plan,
    directory: SweepDirectory,
    objective: Objective,
    name: str,
    url: str | None,
    stopped: threading.Event,
):
    """The study of a directory, or of that name in a database."""
    from sweeps.storage import Patient, open_storage, shown
    from sweeps.study import Study

    steps, first_rung = _steps(plan.experiment.config({}))
    place = shown(url) if url else str(directory.journal)
    return Study(
        lambda: open_storage(url, directory.journal),
        name,
        plan.space,
        plan.count,
        objective,
        plan.describe(),
        steps=steps,
        first_rung=first_rung,
        patient=Patient(place, stopped),
    )


def steps_of(cfg) -> int | None:
    """Of a trial; None: as many as its epochs have, which the corpus says."""
    return None if cfg.epochs else cfg.steps


def _steps(cfg) -> tuple[int | None, int]:
    """Of a trial, and of its first validation."""
    return steps_of(cfg), cfg.every.eval or cfg.steps


def objective_of(cfg, space: Space) -> Objective:
    """What a sweep of this config looks for."""
    from experiment.build import get_task_class

    task = get_task_class(cfg.task)
    return Objective.of(
        space, cfg.keep.metric or task.selection_metric, task.metric_directions
    )


def _in_words(point: Point) -> str:
    drawn = {
        key: format_distribution(value) if isinstance(value, Distribution) else value
        for key, value in point.items()
    }
    return point_in_words(drawn)
