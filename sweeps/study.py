"""Study of a sweep in Optuna: attempts at trials, their reports and their results.

Each attempt at a trial (trial_state.py) is one trial of Optuna. Points that are known
in advance are stored as its parameters; those of TPE are sampled by Optuna. The result
of an attempt is its user attribute "result"; Optuna's state is derived from that.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps import trial_state
from sweeps.objective import Objective
from sweeps.optuna_adapter import (
    attempt_key,
    live_trial,
    make_sampler,
    suggest,
    to_optuna_params,
)
from sweeps.search_space import Distribution, Point, Space
from sweeps.storage import RetryingStorage
from sweeps.sweep_dir import check_description
from sweeps.trial_state import Heartbeat, LivenessMonitor, Trial, TrialAttempt

DIRECTIONS = {"min": "minimize", "max": "maximize"}
OPTUNA_STATES = {
    trial_state.DONE: TrialState.COMPLETE,
    trial_state.PRUNED: TrialState.PRUNED,
    trial_state.DIVERGED: TrialState.PRUNED,  # so that TPE avoids such points
}


class LeaseLost(Exception):
    """Another process has resumed a trial, since this one seemed dead."""


@dataclasses.dataclass
class Claim:
    """Attempt of this process at a trial.

    Attributes:
      trial: number of the trial.
      optuna_trial: the attempt in the storage.
      last_reported_step: newest step that was reported.
      resumed_step: newest step that earlier attempts reported, at which the trial has
        been compared with others already.
    """

    trial: int
    point: Point
    optuna_trial: optuna.Trial
    last_reported_step: int = -1
    resumed_step: int = -1


class Study:
    """Trials of a sweep, shared by all of its processes through the storage."""

    def __init__(
        self,
        open_storage: Callable[[], optuna.storages.BaseStorage],
        name: str,
        space: Space,
        num_trials: int,
        objective: Objective,
        description: dict,
        pruner: optuna.pruners.BasePruner,
        retrying: RetryingStorage,
        monitor: LivenessMonitor | None = None,
    ):
        """Opens the study, or creates it.

        Args:
          description: config and space as JSON; they must not change.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.num_trials, self.objective = space, num_trials, objective
        self.retrying, self.monitor = retrying, monitor or LivenessMonitor()
        self.study = retrying(
            lambda: optuna.create_study(
                storage=open_storage(),
                study_name=name,
                direction=DIRECTIONS[objective.metric.direction],
                pruner=pruner,
                load_if_exists=True,
            )
        )
        self._check_description(name, description)
        self.retrying(self._repair)

    def _check_description(self, name: str, description: dict) -> None:
        """Raises UserError if the study is of another config or space."""
        if "sweep" not in self.retrying(lambda: self.study.user_attrs):
            self.retrying(self.study.set_user_attr, "sweep", description)
        # Another process may have written its own meanwhile.
        stored = self.retrying(lambda: self.study.user_attrs["sweep"])
        check_description(stored, description, f"the study {name}")

    def _repair(self) -> None:
        """Completes what processes were doing when they were killed."""
        for trial in self._optuna_trials():
            if trial.state == TrialState.RUNNING and "result" in trial.user_attrs:
                self._tell(trial.number, trial.user_attrs["result"])

    def _optuna_trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def trials(self) -> list[Trial]:
        """Returns all trials in their current states."""
        found = self.retrying(self._optuna_trials)
        attempts = [to_attempt(trial) for trial in found if "trial" in trial.user_attrs]
        return trial_state.group_by_trial(
            attempts,
            self.num_trials,
            self.space.retries,
            lambda a: self.monitor.is_alive(a.storage_number, a.heartbeat),
        )

    def claim(self, trial: Trial) -> Claim | None:
        """Adds the next attempt at a trial; None if another process was faster."""
        token = uuid.uuid4().hex
        index = trial.last.index + 1 if trial.last else 0
        self.retrying(self.study.add_trial, self._new_attempt(trial, index, token))
        found = self.retrying(self._optuna_trials)
        own = next(t for t in found if t.user_attrs.get("token") == token)
        first = next(t for t in found if attempt_key(t) == (trial.number, index))
        if first.number != own.number:
            self.retrying(self._close, own, {"outcome": trial_state.LOST})
            return None
        earlier = {attempt.storage_number for attempt in trial.attempts}
        for attempt in trial.attempts:
            if attempt.outcome is None:  # its process died
                dead = next(t for t in found if t.number == attempt.storage_number)
                self.retrying(self._close, dead, {"outcome": trial_state.INTERRUPTED})
        claim = self.retrying(self._start, trial, own)
        steps = [t.last_step for t in found if t.number in earlier]
        claim.resumed_step = max((s for s in steps if s is not None), default=-1)
        return claim

    def _new_attempt(self, trial: Trial, index: int, token: str) -> FrozenTrial:
        """Returns an attempt to add, with its point if that is known."""
        point = trial.point or self.space.point(trial.number)
        known = {k: v for k, v in point.items() if not isinstance(v, Distribution)}
        params, distributions = to_optuna_params(known, self.space.points.domains())
        attributes = {
            "trial": trial.number,
            "attempt": index,
            "token": token,
            "heartbeat": dataclasses.asdict(Heartbeat.current()),
        }
        if len(known) == len(point):
            attributes["point"] = point
        return create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs=attributes,
        )

    def _start(self, trial: Trial, own: FrozenTrial) -> Claim:
        """Samples the values that the point leaves open."""
        self.study.sampler = make_sampler(self.space, trial.number)
        optuna_trial = live_trial(self.study, own)
        point = own.user_attrs.get("point")
        if point is None:
            point = {
                key: suggest(optuna_trial, key, value)
                for key, value in self.space.point(trial.number).items()
            }
            optuna_trial.set_user_attr("point", point)
        return Claim(trial.number, point, optuna_trial)

    def send_heartbeat(self, claim: Claim) -> None:
        """Records that this process is alive.

        Raises:
          LeaseLost: another process has resumed the trial.
        """
        heartbeat = dataclasses.asdict(Heartbeat.current())
        self._write(claim.optuna_trial.set_user_attr, "heartbeat", heartbeat)

    def report(self, claim: Claim, values: dict[int, float]) -> bool:
        """Reports new values (step -> pruning metric); returns whether to prune."""
        new = {step: v for step, v in values.items() if step > claim.last_reported_step}
        if not new or self.space.pruning is None:
            return False
        sign = self.objective.pruning_metric.sign * self.objective.metric.sign
        for step, value in sorted(new.items()):
            self._write(claim.optuna_trial.report, sign * value, step)
            claim.last_reported_step = step
            # After each step, since a rung stores the value of the latest one.
            prune = self.retrying(claim.optuna_trial.should_prune)
            if prune and step >= claim.resumed_step:
                return True
        return False

    def finish(self, claim: Claim, outcome: str, **result) -> None:
        """Records the outcome of an attempt.

        Raises:
          LeaseLost: another process has resumed the trial.
        """
        trial = claim.optuna_trial
        # Optuna's times have no zone; with one, daylight saving does not matter.
        started = trial.datetime_start.astimezone()
        seconds = (datetime.datetime.now().astimezone() - started).total_seconds()
        result = {"outcome": outcome, "seconds": seconds, **result}
        self._write(trial.set_user_attr, "result", result)
        self.retrying(self._tell, trial.number, result)

    def _write(self, function: Callable, *arguments) -> None:
        try:
            self.retrying(function, *arguments)
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise LeaseLost from error

    def _close(self, trial: FrozenTrial, result: dict) -> None:
        """Ends an attempt whose process died, or which another one preceded."""
        try:
            live_trial(self.study, trial).set_user_attr("result", result)
        except optuna.exceptions.UpdateFinishedTrialError:
            return
        self._tell(trial.number, result)

    def _tell(self, number: int, result: dict) -> None:
        state = OPTUNA_STATES.get(result["outcome"], TrialState.FAIL)
        values = result["value"] if state == TrialState.COMPLETE else None
        self.study.tell(number, values, state=state, skip_if_finished=True)


def to_attempt(trial: FrozenTrial) -> TrialAttempt:
    """Converts a trial of Optuna to an attempt."""
    attributes = trial.user_attrs
    heartbeat = attributes.get("heartbeat")
    return TrialAttempt(
        trial.number,
        attributes["trial"],
        attributes["attempt"],
        heartbeat=Heartbeat(**heartbeat) if heartbeat else None,
        point=attributes.get("point"),
        **attributes.get("result", {}),
    )
