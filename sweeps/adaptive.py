"""Decisions that depend on the results of other trials: pruning, and points of TPE.

Each is a function of values that the study records with the decision, so that it can
be explained and computed again.
"""

import dataclasses
import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweeps import trial_state
from sweeps.objective import Objective
from sweeps.search_space import (
    Choice,
    Distribution,
    Integers,
    LogUniform,
    Point,
    Pruning,
    Space,
)
from sweeps.trial_state import Trial

if TYPE_CHECKING:  # takes a second to import
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DIRECTIONS = {"min": "minimize", "max": "maximize"}
STATES = {  # names of Optuna's states
    trial_state.DONE: "COMPLETE",
    trial_state.PRUNED: "PRUNED",
    trial_state.DIVERGED: "PRUNED",  # so that TPE avoids such points
    trial_state.FAILED: "FAIL",
    trial_state.RUNNING: "RUNNING",
    trial_state.OPEN: "RUNNING",
}
CATEGORICAL_TYPES = (bool, int, float, str, type(None))  # that Optuna accepts


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """Asynchronous successive halving (ASHA, Li et al. 2020), or brackets of it.

    Rung k of bracket b is at step first * factor^(k + b). A trial that reaches a rung
    continues if it is among the best 1/factor of all that have reached it, or the best
    of fewer than `factor`. Hyperband (Li et al. 2018) divides the trials into brackets,
    with shares as in its algorithm 1; ASHA is bracket 0 alone.

    Attributes:
      first: step of the first rung.
      brackets: number of brackets.
      sign: factor of a value after which larger is better.
    """

    first: int
    factor: int
    brackets: int
    sign: int

    @classmethod
    def from_pruning(
        cls, pruning: Pruning, steps: int | None, first_validation: int, sign: int
    ) -> "SuccessiveHalving":
        """Returns the rule of a search space; see `Pruning.rung_bounds`."""
        first, last = pruning.rung_bounds(steps, first_validation)
        brackets = 1
        if pruning.method == "hyperband":
            while first * pruning.factor**brackets <= last:
                brackets += 1
        return cls(first, pruning.factor, brackets, sign)

    def bracket(self, trial: int) -> int:
        """Returns the bracket of a trial, which depends on its number alone."""
        shares = [
            math.ceil(self.brackets * self.factor ** (top - 1) / top)
            for top in range(self.brackets, 0, -1)
        ]
        position = zlib.crc32(str(trial).encode()) % sum(shares)
        return next(b for b in range(self.brackets) if position < sum(shares[: b + 1]))

    def rungs(self, trial: int, values: Mapping[int, float]) -> list[tuple[int, float]]:
        """Returns step and value of a trial at each rung that it has reached."""
        passed, at = [], self.first * self.factor ** self.bracket(trial)
        while steps := [step for step in values if step >= at]:
            passed.append((min(steps), values[min(steps)]))
            at *= self.factor
        return passed

    def continues(self, value: float, others: Sequence[float]) -> bool:
        """Returns whether a value is among the best at a rung."""
        ranked = sorted((self.sign * x for x in [*others, value]), reverse=True)
        return self.sign * value >= ranked[max(1, len(ranked) // self.factor) - 1]

    def compare(
        self,
        number: int,
        values: Mapping[int, float],
        trials: Sequence[Trial],
        after: int,
    ) -> dict | None:
        """Returns why a trial is pruned: the rung and the others' values there.

        Args:
          values: values of the trial by step.
          trials: all trials.
          after: step up to which the trial has been compared already.

        Returns:
          None if it continues.
        """
        for rung, (step, value) in enumerate(self.rungs(number, values)):
            if step <= after:
                continue
            others = [
                [trial.number, rungs[rung][1]]
                for trial in trials
                if trial.number != number
                and self.bracket(trial.number) == self.bracket(number)
                and len(rungs := self.rungs(trial.number, trial.values)) > rung
            ]
            if not self.continues(value, [x for _, x in others]):
                seen = {"rung": rung, "step": step, "value": value}
                return {**seen, "others": others}
        return None


def summarize_trials(trials: Sequence[Trial]) -> list[dict]:
    """Returns what TPE uses of each trial, beside its point: how it ended, if it did.

    Trials that are to be run again count as running.
    """
    seen = []
    for trial in trials:
        if trial.point is None or trial.state == trial_state.FAILED:
            continue
        state = trial.state if trial.state in trial_state.ENDED else trial_state.RUNNING
        row = {"trial": trial.number, "state": state}
        if state == trial_state.DONE:
            row["value"] = trial.value
        elif state != trial_state.RUNNING:
            row["values"] = dict(sorted(trial.values.items())[-1:])
        seen.append(row)
    return seen


def sample_point(
    space: Space,
    objective: Objective,
    number: int,
    seen: Sequence[dict],
    points: Mapping[int, Point],
) -> Point:
    """Returns the point of a trial, of which TPE samples what the space leaves open.

    TPE (Bergstra et al. 2011) is seeded by the number of the trial, so that the same
    results lead to the same point, whichever process samples.

    Args:
      seen: result of `summarize_trials`.
      points: trial number -> point.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = (space.seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        direction = DIRECTIONS[objective.metric.direction]
        study = optuna.create_study(direction=direction, sampler=sampler)
        for row in seen:
            study.add_trial(frozen_trial(space, objective, row, points[row["trial"]]))
        point = space.point(number)
        ranges = {
            key: to_optuna_distribution(value)
            for key, value in point.items()
            if isinstance(value, Distribution)
        }
        return {**point, **study.ask(fixed_distributions=ranges).params}


def frozen_trial(
    space: Space, objective: Objective, row: dict, point: Point
) -> "FrozenTrial":
    """Returns a trial as Optuna stores it.

    Args:
      row: a row of `summarize_trials`.
    """
    from optuna.trial import TrialState, create_trial

    sign = objective.pruning_metric.sign * objective.metric.sign
    values = {int(k): sign * v for k, v in row.get("values", {}).items()}
    domains, params = space.points.domains(), {}
    for key, value in point.items():
        choices = getattr(domains[key], "values", ())
        is_storable = all(isinstance(choice, CATEGORICAL_TYPES) for choice in choices)
        if value in domains[key] and is_storable:
            params[key] = value
    return create_trial(
        state=TrialState[STATES[row["state"]]],
        value=row.get("value"),
        params=params,
        distributions={key: to_optuna_distribution(domains[key]) for key in params},
        intermediate_values=values,
    )


def to_optuna_distribution(domain: Distribution) -> "BaseDistribution":
    """Converts a distribution of a search space to Optuna's class."""
    from optuna import distributions

    if isinstance(domain, Choice):
        return distributions.CategoricalDistribution(domain.values)
    if isinstance(domain, Integers):
        return distributions.IntDistribution(domain.low, domain.high, log=domain.log)
    is_log = isinstance(domain, LogUniform)
    return distributions.FloatDistribution(domain.low, domain.high, log=is_log)
