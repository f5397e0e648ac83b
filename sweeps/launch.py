"""Launch of a sweep from its command line: the plan, the study and the workers.

sweep.json      description: the resolved config and the search space
study/<n>/      documents of the attempts at trial n (sweeps/trial_state.py)
trials/<n>/     run directory of trial n
logs/<n>.log    output of its processes
trials.jsonl    results, one trial a line
"""

import dataclasses
import json
from typing import Any

from sweeps.adaptive import SuccessiveHalving
from sweeps.devices import DeviceAllocation, allocate, describe, this_machine
from sweeps.objective import Metric, Objective
from sweeps.search_space import Space, listed, read_space
from sweeps.slices import Slice, follow
from sweeps.storage import Storage
from sweeps.study import Study
from sweeps.trial_configs import TrialConfigs, check_population, format_point
from sweeps.trial_process import FINISHED, STOPPED, start_trials
from sweeps.trial_state import Trial
from training.run_dir import describe_differences
from training.signals import StopRequested, graceful_stop
from utils import strict_json
from utils.errors import UserError

VERSION = 2  # of the layout; 1 kept the study in a journal or in a database
DESCRIPTION = "sweep.json"
MAX_CHARACTERS = 500  # of differences that are shown


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """Trials of a sweep, before anything is run."""

    configs: TrialConfigs
    space: Space
    num_trials: int

    def table(self, placement: str) -> str:
        """Formats one line a trial; values that TPE will sample are shown as ranges."""
        points = (self.space.point(number) for number in range(self.num_trials))
        rows = (f"{n:>5}  {format_point(point)}" for n, point in enumerate(points))
        return "\n".join([*rows, f"{self.num_trials} trials, {placement}"])

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
    search_space = read_space(space, config.partition(":")[2] or None)
    configs = TrialConfigs.from_flag(config, overrides)
    configs.check(search_space)
    if search_space.pruning is not None:
        cfg = configs.config({})
        search_space.pruning.rung_bounds(num_steps(cfg), first_validation(cfg))
    return SweepPlan(configs, search_space, search_space.num_trials(trials))


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices and processes on which trials run.

    Attributes:
      workers: number of workers, each with an equal share of the machine's devices.
      population: number of trials that a worker trains as one program.
      group: processes that train each trial together; None: this one alone.
    """

    workers: int = 1
    population: int = 1
    group: Slice | None = None

    def __post_init__(self):
        if self.population < 1:
            raise UserError(f"--population={self.population} must be at least 1")
        if self.group and (self.workers, self.population) != (1, 1):
            raise UserError(
                "--placement=slice trains one trial at a time: set neither --workers "
                "nor --population"
            )

    def allocate(self) -> list[DeviceAllocation]:
        """Returns the devices of each worker."""
        machine = this_machine()
        if self.group:
            chips = len(machine.devices) * self.group.num_processes
            return [DeviceAllocation({}, kind=machine.kind, count=chips or 1)]
        return allocate(machine, self.workers)

    def __str__(self) -> str:
        if self.group is None:
            return describe(self.allocate(), self.population)
        group = self.group
        return (
            f"1 at once on the {group.num_processes} processes of {group.name}, of "
            f"which this is process {group.process_id}"
        )


def check_plan(plan: SweepPlan) -> Objective:
    """Returns the objective of a sweep.

    Raises UserError if a value of a config or point is invalid, or the metric unknown.
    """
    # These take seconds to import.
    from experiment import validate
    from experiment.build import get_task_class

    cfg = plan.configs.config({})
    validate.check_keys(cfg)
    plan.configs.check(plan.space, validate.check_keys)
    task = get_task_class(cfg.task)
    default = cfg.keep.metric or task.default_metric(cfg)
    return Objective.from_space(plan.space, default, task.directions(cfg))


def run(plan: SweepPlan, workdir: str, placement: Placement) -> int:
    """Runs the trials of a sweep that are left; returns the exit code."""
    population, group = placement.population, placement.group
    objective = check_plan(plan)
    cfg = plan.configs.config({})
    if population > 1:
        check_population(cfg)
    with graceful_stop() as stopped:
        storage = Storage(workdir, stopped)
        check_folder(storage)
        allocations = placement.allocate()
        # These take seconds to import.
        from sweeps.progress import ProgressTable, print_results
        from sweeps.worker import SweepWorker

        pruning, halving = plan.space.pruning, None
        if pruning is not None:
            bounds = num_steps(cfg), first_validation(cfg)
            sign = objective.pruning_metric.sign
            halving = SuccessiveHalving.from_pruning(pruning, *bounds, sign)
        try:
            storage.check()
            description = plan.to_dict() | {"retries": plan.space.retries}
            init_folder(storage, description, objective.metric)
            if group and group.process_id > 0:
                return follow(group, plan.configs, plan.num_trials, storage, stopped)
            study = Study(storage, plan.space, plan.num_trials, objective, halving)
            at_once = len(allocations) * population
            table = ProgressTable(objective.metric, num_steps(cfg), at_once)
            parts = study, plan.configs, allocations, table, stopped, population
            start = group.start if group else start_trials
            code = SweepWorker(*parts, start=start).run()
            if code == FINISHED:
                print_results(study.trials(), objective.metric)
                if group:
                    group.announce(storage, num_trials=plan.num_trials)
            return code
        except StopRequested:  # while the storage was unreachable
            return STOPPED


def print_status(workdir: str) -> None:
    """Prints the trials of a sweep, from its folder alone.

    A trial of another machine counts as running until another process takes it over.
    """
    from sweeps.progress import print_results

    print_results(*read_results(Storage(workdir)))


def read_results(storage: Storage) -> tuple[list[Trial], Metric]:
    """Returns the trials of a sweep and its objective, from the folder alone.

    Raises UserError where the folder is damaged.
    """
    description = read_description(storage)
    lines = (storage.read_bytes("trials.jsonl") or b"").splitlines()
    try:
        metric = Metric(**description["metric"])
        rows = [json.loads(line)["point"] or {} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{storage.path} is a damaged sweep: {error}") from error
    space = Space(listed(rows or [{}]), retries=description.get("retries", 0))
    study = Study(storage, space, len(rows), Objective(metric, space.value, metric))
    return study.trials(), metric


def check_folder(storage: Storage) -> None:
    """Raises UserError if the folder holds something other than a sweep."""
    path = storage.path
    if (path / DESCRIPTION).exists() or not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file: choose another --workdir")
    names = [p.name for p in path.iterdir() if not p.name.endswith(".draft")]
    if names:
        kind = "a run directory" if "config.json" in names else "not empty"
        raise UserError(f"{path} is {kind} and not a sweep's: choose another --workdir")


def init_folder(storage: Storage, description: dict, metric: Metric) -> None:
    """Writes the description of a new sweep, or checks that of an old one.

    Args:
      description: config and space, which must not change, and the number of retries.
    """
    document = {**description, "metric": dataclasses.asdict(metric), "version": VERSION}
    if not storage.create(DESCRIPTION, document):
        check_description(read_description(storage), description, storage.path)


def read_description(storage: Storage) -> dict:
    """Returns the description of a sweep.

    Raises:
      UserError: there is none, or one of another version of the layout.
    """
    description = storage.read(DESCRIPTION)
    if description is None:
        raise UserError(
            f"{storage.path} is not the folder of a sweep: no {DESCRIPTION}"
        )
    if description.get("version") != VERSION:
        raise UserError(
            f"{storage.path} holds a sweep of another version of this code: use the "
            "version that made it, or choose another --workdir"
        )
    return description


def check_description(stored: dict, current: dict, where: object) -> None:
    """Raises UserError if a stored sweep has another config or search space."""
    current = json.loads(strict_json.dumps(current))  # tuples are stored as lists
    for key, kind in {"config": "config", "space": "search space"}.items():
        if differences := describe_differences(stored[key], current[key]):
            text = "; ".join(differences)
            raise UserError(
                f"{where} holds a sweep of another {kind}: {text[:MAX_CHARACTERS]}. "
                f"Choose another --workdir, or give the same {kind} to resume"
            )


def num_steps(cfg) -> int | None:
    """Returns the steps of a trial; None if they depend on the corpus's size."""
    return None if cfg.epochs else cfg.steps


def first_validation(cfg) -> int:
    """Returns the step of a trial's first validation."""
    return cfg.every.eval or cfg.steps
