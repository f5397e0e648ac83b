"""A sweep whose workers train several trials as one program (a population)."""

import json
import time
from collections.abc import Callable, Sequence

from experiment.validate import validate_config, validate_population
from sweeps import trial_state
from sweeps.devices import DeviceAllocation
from sweeps.search_space import Choice, Distribution, Integers, Point
from sweeps.study import Claim
from sweeps.trial_process import TrialSpec
from sweeps.trial_state import Trial
from sweeps.vmapped_trials.process import PopulationProcess
from sweeps.worker import RunningTrial, SweepWorker
from training.vmapped_trials.step import ON_OFF_KEYS, VMAPPABLE_KEYS
from utils.errors import UserError


class PopulationWorker(SweepWorker):
    """A `SweepWorker` whose workers have slots for the trials of a population.

    The slots of a worker are filled at once, and again when all are free: trials
    start together, since they share every batch.
    """

    def __init__(
        self,
        *arguments,
        population: int,
        start: Callable[
            [Sequence[TrialSpec], DeviceAllocation], PopulationProcess
        ] = PopulationProcess,
    ):
        """Takes those of `SweepWorker`, and `population`, the slots of a worker."""
        super().__init__(*arguments, start=start)
        self.population = population
        self.allocations = [
            devices for devices in self.allocations for _ in range(population)
        ]
        self.running: list[RunningTrial | None] = [None] * len(self.allocations)

    def _begin(self, worker: int) -> bool:
        """Starts a population on a worker, if all its slots are free."""
        first = worker - worker % self.population
        slots = range(first, first + self.population)
        if any(self.running[slot] is not None for slot in slots):
            return True
        claims = self._claims()
        if claims:
            specs = [self._spec(claim) for claim in claims]
            process = self.start(specs, self.allocations[first])
            now = time.monotonic()
            for slot, claim, trial in zip(slots, claims, process.trials, strict=False):
                self.running[slot] = RunningTrial(claim, trial, now)
        return bool(claims)

    def _claims(self) -> list[Claim]:
        """Claims open trials that can train together, at most one for each slot."""
        claims: list[Claim] = []
        while len(claims) < self.population and not self.stopped.is_set():
            fits = self._fits(claims) if claims else None
            claim = self.study.claim(fits)
            if claim is None:
                break
            try:
                cfg = self.configs.config(claim.point)
                validate_config(cfg, has_devices=False)
                validate_population(cfg)
            except UserError as error:  # it would end the others too
                self.study.finish(claim, trial_state.FAILED, error=str(error))
            else:
                claims.append(claim)
        return claims

    def _fits(self, claims: Sequence[Claim]) -> Callable[[Trial], bool]:
        """Returns whether a trial can train together with the given claims."""
        wanted = common_part(claims[0].point)
        steps = [self._steps(claim.trial) for claim in claims]

        def fits(trial):
            point = trial.last.point if trial.last else None
            found = common_part(point or self.study.space.point(trial.number))
            same = found is not None and found == wanted
            return same and can_go_on(*steps, self._steps(trial.number))

        return fits

    def _steps(self, trial: int) -> set[str]:
        """Returns the steps of a trial's checkpoints."""
        folder = self.directory.run(trial) / "checkpoints"
        return {path.name for path in folder.glob("*") if path.name.isdigit()}


def can_go_on(*steps: set[str]) -> bool:
    """Whether trials with these checkpoints may resume together.

    All have a step in common; or one was killed before its first checkpoint was
    complete, so that the others lose no more than their own first.
    """
    if set.intersection(*steps):
        return True
    return not all(steps) and len(set.union(*steps)) < 2


def common_part(point: Point) -> dict | None:
    """Returns the settings of a point that the trials of a population must share.

    None where a sampler has yet to suggest one of them. As JSON, as a storage returns
    points: tuples are lists there.
    """
    fixed = {
        key: value
        for key, value in point.items()
        if key not in VMAPPABLE_KEYS or _may_be_none(value)
    }
    if any(isinstance(value, Distribution) for value in fixed.values()):
        return None
    switched = {key: _is_on(point[key]) for key in ON_OFF_KEYS if key in point}
    if None in switched.values():
        return None
    return json.loads(json.dumps(fixed)) | switched


def _may_be_none(value: object) -> bool:
    """Whether a value may be None instead of a number."""
    return value is None or (isinstance(value, Choice) and None in value.values)


def _is_on(value: object) -> bool | None:
    """Whether a number is not 0; None where a sampler has yet to suggest it."""
    if isinstance(value, Choice):
        found = set(map(bool, value.values))
        return found.pop() if len(found) == 1 else None
    if isinstance(value, Integers) and 0 in value:
        return None
    return True if isinstance(value, Distribution) else bool(value)
