"""Samplers, distributions and pruners of Optuna for a search space.

All uses of Optuna's private parts are here; tests/sweeps/test_optuna_adapter.py fails
when they change.

- `FrozenTrial._trial_id`, with which `optuna.Trial` is created (`live_trial`): Optuna
  has no public way to write to a trial that was added with `Study.add_trial`, which
  allows us to write an attempt with all its attributes at once.
- `HyperbandPruner._get_bracket_id` and `_create_bracket_study`: the bracket of a trial
  must not depend on how often it was interrupted.
"""

import dataclasses
import types
import warnings

import optuna
from optuna import distributions
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from sweeps.search_space import (
    Choice,
    Distribution,
    Integers,
    LogUniform,
    Point,
    Pruning,
    Space,
)

CATEGORICAL_TYPES = (bool, int, float, str, type(None))  # that Optuna accepts


def make_sampler(space: Space, trial: int) -> optuna.samplers.BaseSampler:
    """Returns a TPE sampler that is seeded by the number of the trial.

    Thus the same earlier results lead to the same point, whichever process samples.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        seed = (space.seed * 1_000_003 + trial) % 2**32
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def suggest(trial: optuna.Trial, key: str, value: object) -> object:
    """Samples a value from the study where `value` is a Distribution."""
    if not isinstance(value, Distribution):
        return value
    if isinstance(value, Choice):
        return trial.suggest_categorical(key, value.values)
    if isinstance(value, Integers):
        return trial.suggest_int(key, value.low, value.high, log=value.log)
    is_log = isinstance(value, LogUniform)
    return trial.suggest_float(key, value.low, value.high, log=is_log)


def to_optuna_params(
    point: Point, domains: dict[str, Distribution]
) -> tuple[dict, dict[str, distributions.BaseDistribution]]:
    """Returns the values of a point that Optuna can store, and their distributions."""
    params = {}
    for key, value in point.items():
        choices = getattr(domains[key], "values", ())
        is_storable = all(isinstance(choice, CATEGORICAL_TYPES) for choice in choices)
        if value in domains[key] and is_storable:
            params[key] = value
    return params, {key: to_optuna_distribution(domains[key]) for key in params}


def to_optuna_distribution(domain: Distribution) -> distributions.BaseDistribution:
    """Converts a distribution of a search space to Optuna's class."""
    if isinstance(domain, Choice):
        return distributions.CategoricalDistribution(domain.values)
    if isinstance(domain, Integers):
        return distributions.IntDistribution(domain.low, domain.high, log=domain.log)
    is_log = isinstance(domain, LogUniform)
    return distributions.FloatDistribution(domain.low, domain.high, log=is_log)


@dataclasses.dataclass(eq=False)
class LatestAttempts:
    """View of a study that leaves out attempts which later ones replaced.

    Each attempt is a trial to Optuna, whose pruners would compare an interrupted trial
    with its own past.

    Attributes:
      view: the study, or the bracket of it that a pruner compares within.
      whole: the study.
    """

    view: optuna.Study
    whole: optuna.Study

    def __getattr__(self, name: str):
        return getattr(self.view, name)

    def get_trials(self, deepcopy: bool = True, states=None) -> list:
        """Returns the last attempt of each trial in the view."""
        latest = dict(sorted(map(attempt_key, self.whole.get_trials(deepcopy=False))))
        trials = self.view.get_trials(deepcopy=deepcopy, states=states)
        return [trial for trial in trials if attempt_key(trial) in latest.items()]


class Asha(SuccessiveHalvingPruner):
    """Asynchronous successive halving (Li et al. 2020) over the latest attempts."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return super().prune(LatestAttempts(study, study), trial)


class Hyperband(HyperbandPruner):
    """Hyperband (Li et al. 2018) over the latest attempts."""

    def _get_bracket_id(self, study, trial) -> int:
        # Optuna hashes the number of the trial: all attempts have one bracket.
        number = trial.user_attrs.get("trial", trial.number)
        return super()._get_bracket_id(study, types.SimpleNamespace(number=number))

    def _create_bracket_study(self, study, bracket_id):
        return LatestAttempts(super()._create_bracket_study(study, bracket_id), study)


def make_pruner(
    pruning: Pruning | None, steps: int | None, first_validation: int
) -> optuna.pruners.BasePruner:
    """Returns the pruner of a search space; see `Pruning.rung_bounds`."""
    if pruning is None:
        return optuna.pruners.NopPruner()
    first, last = pruning.rung_bounds(steps, first_validation)
    if pruning.method == "asha":
        return Asha(min_resource=first, reduction_factor=pruning.factor)
    return Hyperband(
        min_resource=first, max_resource=last, reduction_factor=pruning.factor
    )


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Returns a trial of the storage as one that can be written to."""
    return optuna.Trial(study, trial._trial_id)


def attempt_key(trial: FrozenTrial) -> tuple[int, int]:
    """Returns the trial and the index of an attempt; others are their own trial."""
    attributes = trial.user_attrs
    return attributes.get("trial", -1 - trial.number), attributes.get("attempt", 0)
