"""A sweep as a study of Optuna's: the only file that knows how it is written there.

An attempt at a slot (see ledger.py) is one of Optuna's trials. Points that are known in
advance are written as its parameters; those of TPE are asked for. What came of it
stands in the attribute "result", which is the truth; Optuna's state follows from it.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps import ledger
from sweeps.leases import Lease, Watch
from sweeps.ledger import Attempt, Slot
from sweeps.objective import Objective
from sweeps.pruners import make_pruner
from sweeps.samplers import as_parameters, make_sampler, suggested
from sweeps.search_space import Distribution, Point, Space
from sweeps.storage import Patient
from sweeps.sweep_dir import check_same

DIRECTIONS = {"min": "minimize", "max": "maximize"}
STATES = {
    ledger.DONE: TrialState.COMPLETE,
    ledger.PRUNED: TrialState.PRUNED,
    ledger.DIVERGED: TrialState.PRUNED,  # TPE learns to stay away
}


class TakenAway(Exception):
    """Another process took a trial over, since this one seemed dead."""


@dataclasses.dataclass
class Claim:
    """An attempt that is this process's.

    Attributes:
      trial: Optuna's.
      reported: the newest step it was told of.
      judged: the newest that an earlier attempt at the slot was compared at.
    """

    slot: int
    point: Point
    trial: optuna.Trial
    reported: int = -1
    judged: int = -1


class Study:
    """What all processes of a sweep share.

    Attributes:
      count: slots there are.
    """

    def __init__(
        self,
        storage: Callable[[], optuna.storages.BaseStorage],
        name: str,
        space: Space,
        count: int,
        objective: Objective,
        description: dict,
        *,
        steps: int | None,
        first_rung: int,
        patient: Patient,
        watch: Watch | None = None,
    ):
        """Opens it, or makes it.

        Args:
          storage: opens where it is kept.
          description: the config and the space, as JSON: what may not change.
          steps, first_rung: of a trial, if that is known, and to its first validation,
            for pruning.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.count, self.objective = space, count, objective
        self.patient, self.watch = patient, watch or Watch()
        pruner = make_pruner(space.pruning, steps, first_rung)
        self.study = patient(_open, storage, name, objective.metric.direction, pruner)
        self._agree(name, description)
        self.patient(self._mend)

    def _agree(self, name: str, description: dict) -> None:
        """Raises UserError if the study is of another config or space."""
        known = self.patient(lambda: self.study.user_attrs)
        if "sweep" not in known:
            self.patient(self.study.set_user_attr, "sweep", description)
            known = self.patient(lambda: self.study.user_attrs)  # another's, perhaps
        check_same(known["sweep"], description, f"the study {name}")

    def _mend(self) -> None:
        """Tells Optuna what a process that was killed could no more."""
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and "result" in trial.user_attrs:
                self._tell(trial.number, trial.user_attrs["result"])

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def slots(self) -> list[Slot]:
        """All of them as they are now."""
        trials = self.patient(self._trials)
        attempts = [attempt_of(t) for t in trials if "slot" in t.user_attrs]
        retries, alive = self.space.retries, self._is_alive
        return ledger.slots(attempts, self.count, retries, alive)

    def _is_alive(self, attempt: Attempt) -> bool:
        return self.watch.is_alive(attempt.number, attempt.lease)

    def claim(self, fits: Callable[[Slot], bool] | None = None) -> Claim | None:
        """The first open slot, for this process; None: there is none now.

        Args:
          fits: which slots will do; None: all.
        """
        for slot in self.slots():
            if slot.state != ledger.OPEN or (fits and not fits(slot)):
                continue
            if claim := self._claim(slot):
                return claim
        return None

    def _claim(self, slot: Slot) -> Claim | None:
        """Writes down the next attempt; None where another process was first."""
        token = uuid.uuid4().hex
        number = slot.last.attempt + 1 if slot.last else 0
        template = self._template(slot, number, token)
        self.patient(self.study.add_trial, template)
        trials = self.patient(self._trials)
        mine = next(t for t in trials if t.user_attrs.get("token") == token)
        valid = [
            t
            for t in trials
            if (t.user_attrs.get("slot"), t.user_attrs.get("attempt"))
            == (slot.number, number)
        ]
        if valid[0].number != mine.number:
            self.patient(self._close, mine, {"outcome": ledger.LOST})
            return None
        for attempt in slot.attempts:
            if attempt.outcome is None:  # its process died
                dead = next(t for t in trials if t.number == attempt.number)
                self.patient(self._close, dead, {"outcome": ledger.INTERRUPTED})
        claim = self.patient(self._begin, slot, mine)
        before = [t.last_step for t in _attempts_before(trials, slot, mine.number)]
        claim.judged = max((s for s in before if s is not None), default=-1)
        return claim

    def _template(self, slot: Slot, number: int, token: str) -> FrozenTrial:
        """An attempt to be: with its point, if that is known."""
        point = slot.last.point if slot.last else None
        if point is None:
            point = self.space.point(slot.number)
        known = {k: v for k, v in point.items() if not isinstance(v, Distribution)}
        params, distributions = as_parameters(known, self.space.points.domains())
        attributes = {
            "slot": slot.number,
            "attempt": number,
            "token": token,
            "lease": Lease.mine().to_json(),
        }
        if len(known) == len(point):
            attributes["point"] = point
        return create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs=attributes,
        )

    def _begin(self, slot: Slot, mine: FrozenTrial) -> Claim:
        """Draws what the point leaves open."""
        self.study.sampler = make_sampler(self.space, slot.number)
        trial = optuna.Trial(self.study, mine._trial_id)
        point = mine.user_attrs.get("point")
        if point is None:
            point = {
                key: suggested(trial, key, value)
                for key, value in self.space.point(slot.number).items()
            }
            trial.set_user_attr("point", point)
        return Claim(slot.number, point, trial)

    def renew(self, claim: Claim) -> None:
        """Says that this process lives. Raises TakenAway."""
        lease = Lease.mine().to_json()
        self._own(claim.trial.set_user_attr, "lease", lease)

    def report(self, claim: Claim, series: dict[int, float]) -> bool:
        """Tells how a trial does so far; whether it is to be stopped for that."""
        new = {step: v for step, v in series.items() if step > claim.reported}
        if not new or self.space.pruning is None:
            return False
        factor = self.objective.pruning.sign * self.objective.metric.sign
        for step, value in sorted(new.items()):
            self._own(claim.trial.report, factor * value, step)
            claim.reported = step
            # At each: a rung keeps the value of the step that is reported last.
            worse = self.patient(claim.trial.should_prune)
            if worse and step >= claim.judged:  # before it went on from there
                return True
        return False

    def end(self, claim: Claim, outcome: str, **result) -> None:
        """Writes down what came of an attempt. Raises TakenAway."""
        trial = claim.trial
        # Optuna's time has no zone: in one, the clocks' turns do not count.
        took = datetime.datetime.now().astimezone() - trial.datetime_start.astimezone()
        result = {"outcome": outcome, "seconds": took.total_seconds(), **result}
        self._own(trial.set_user_attr, "result", result)
        self.patient(self._tell, trial.number, result)

    def _own(self, write: Callable, *arguments) -> None:
        try:
            self.patient(write, *arguments)
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TakenAway from error

    def _close(self, trial: FrozenTrial, result: dict) -> None:
        """Ends an attempt of a process that is no more, or came too late."""
        try:
            living = optuna.Trial(self.study, trial._trial_id)
            living.set_user_attr("result", result)
        except optuna.exceptions.UpdateFinishedTrialError:
            return
        self._tell(trial.number, result)

    def _tell(self, number: int, result: dict) -> None:
        state = STATES.get(result["outcome"], TrialState.FAIL)
        values = result["value"] if state == TrialState.COMPLETE else None
        self.study.tell(number, values, state=state, skip_if_finished=True)


def _attempts_before(trials, slot: Slot, most: int) -> list[FrozenTrial]:
    """At a slot, before Optuna's trial `most`."""
    numbers = {attempt.number for attempt in slot.attempts}
    return [t for t in trials if t.number in numbers and t.number < most]


def _open(storage, name: str, direction: str, pruner) -> optuna.Study:
    try:
        return optuna.create_study(
            storage=storage(),
            study_name=name,
            direction=DIRECTIONS[direction],
            pruner=pruner,
            load_if_exists=True,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise OSError(f"{error}") from error  # made at the same time: try again


def attempt_of(trial: FrozenTrial) -> Attempt:
    """What a trial of Optuna's says."""
    known = trial.user_attrs
    lease, result = known.get("lease"), known.get("result", {})
    return Attempt(
        number=trial.number,
        slot=known["slot"],
        attempt=known["attempt"],
        outcome=result.get("outcome"),
        lease=Lease.of_json(lease) if lease else None,
        point=known.get("point"),
        value=result.get("value"),
        step=result.get("step"),
        error=result.get("error"),
        began=trial.datetime_start,
        seconds=result.get("seconds"),
    )
