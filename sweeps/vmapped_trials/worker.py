"""A sweep whose workers train many trials at once: those that differ in numbers."""

import json
import time
from collections.abc import Callable, Iterable, Sequence

from experiment.validate import validate_anywhere, validate_population
from sweeps import ledger
from sweeps.devices import Share
from sweeps.ledger import Slot
from sweeps.search_space import Choice, Distribution, Integers, Point
from sweeps.study import Claim
from sweeps.trial import Order
from sweeps.vmapped_trials.trial import PopulationProcess
from sweeps.worker import Running, Sweep
from training.vmapped_trials.step import ON_OFF_KEYS, VMAPPABLE_KEYS
from utils.errors import UserError


class PopulationSweep(Sweep):
    """A `Sweep` each of whose workers has seats for the members of a population.

    A worker's seats are filled at once, and again when all are free: members begin
    together, for they share every batch.
    """

    def __init__(
        self,
        *arguments,
        population: int,
        start: Callable[
            [Sequence[Order], Share], PopulationProcess
        ] = PopulationProcess,
    ):
        """Args: population: seats of a worker; `arguments`, `start`: see `Sweep`."""
        super().__init__(*arguments, start=start)
        self.population = population
        self.shares = [share for share in self.shares for _ in range(population)]
        self.running: list[Running | None] = [None] * len(self.shares)

    def _begin(self, worker: int) -> bool:
        """Gives the worker of a seat a population, if all its seats are free."""
        first = worker - worker % self.population
        seats = range(first, first + self.population)
        if any(self.running[seat] is not None for seat in seats):
            return True
        claims = self._claims()
        if claims:
            orders = [self._order(claim) for claim in claims]
            process = self.start(orders, self.shares[first])
            now = time.monotonic()
            for seat, claim, member in zip(
                seats, claims, process.members, strict=False
            ):
                self.running[seat] = Running(claim, member, now)
        return bool(claims)

    def _claims(self) -> list[Claim]:
        """Open trials that can train together, as many as there are seats."""
        claims: list[Claim] = []
        while len(claims) < self.population and not self.stopped.is_set():
            fits = self._fits(claims) if claims else None
            claim = self.study.claim(fits)
            if claim is None:
                break
            try:
                cfg = self.experiment.config(claim.point)
                validate_anywhere(cfg)
                validate_population(cfg)
            except UserError as error:  # it would take the others with it
                self.study.end(claim, ledger.FAILED, error=str(error))
            else:
                claims.append(claim)
        return claims

    def _fits(self, claims: Sequence[Claim]) -> Callable[[Slot], bool]:
        """From a slot to whether it can train together with all of some claims."""
        wanted = common_part(claims[0].point)
        steps = [self._steps(claim.slot) for claim in claims]

        def fits(slot):
            point = slot.last.point if slot.last else None
            found = common_part(point or self.study.space.point(slot.number))
            same = found is not None and found == wanted
            return same and can_go_on(*steps, self._steps(slot.number))

        return fits

    def _steps(self, slot: int) -> set[str]:
        """The checkpoints that a trial has."""
        folder = self.directory.run(slot) / "checkpoints"
        return {path.name for path in _entries(folder) if path.name.isdigit()}

    def _order(self, claim: Claim) -> Order:
        log, workdir = self.directory.log(claim.slot), self.directory.run(claim.slot)
        return Order(self.experiment, claim.point, workdir, log)


def can_go_on(*steps: set[str]) -> bool:
    """Whether trials with these checkpoints may go on together.

    All have a step in common; or one was killed before its first checkpoint was
    whole, so that the others lose no more than their own first.
    """
    if set.intersection(*steps):
        return True
    return not all(steps) and len(set.union(*steps)) < 2


def common_part(point: Point) -> dict | None:
    """What members of a population have in common, of what a point sets.

    None where results will suggest it: then it is not known whether it fits. As JSON,
    in which a storage gives points back: tuples are lists there.
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
    """Whether no number may stand there."""
    return value is None or (isinstance(value, Choice) and None in value.values)


def _is_on(value: object) -> bool | None:
    """Whether a number is not 0; None: results will suggest it."""
    if isinstance(value, Choice):
        found = set(map(bool, value.values))
        return found.pop() if len(found) == 1 else None
    if isinstance(value, Integers) and 0 in value:
        return None
    return True if isinstance(value, Distribution) else bool(value)


def _entries(folder) -> Iterable:
    return folder.iterdir() if folder.exists() else ()
