"""Optuna's pruners, which compare a trial with others but not with its own past.

An attempt that was interrupted is followed by another of the same trial. Both are
trials to Optuna, whose pruners would count the first as a rival of the second.
"""

import types

import optuna
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner

from sweeps.search_space import Pruning


class Newest:
    """A study as a pruner looks at it, without attempts that others followed.

    Attributes:
      view: the study, or the part of it that a pruner compares within.
      whole: all of it.
    """

    def __init__(self, view: optuna.Study, whole: optuna.Study):
        self.view, self.whole = view, whole

    def __getattr__(self, name: str):
        return getattr(self.view, name)

    def get_trials(self, deepcopy: bool = True, states=None) -> list:
        """Those of `view` that are the last of their slot."""
        newest = dict(sorted(map(_place, self.whole.get_trials(deepcopy=False))))
        trials = self.view.get_trials(deepcopy=deepcopy, states=states)
        return [trial for trial in trials if _place(trial) in newest.items()]


class Asha(SuccessiveHalvingPruner):
    """Asynchronous successive halving (Li et al. 2020)."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial ends early."""
        return super().prune(Newest(study, study), trial)


class Hyperband(HyperbandPruner):
    """Several of them, which begin at different steps (Li et al. 2018)."""

    def _get_bracket_id(self, study, trial) -> int:
        """By the slot: later attempts are of the bracket of the first."""
        slot = trial.user_attrs.get("slot", trial.number)
        return super()._get_bracket_id(study, types.SimpleNamespace(number=slot))

    def _create_bracket_study(self, study, bracket_id):
        return Newest(super()._create_bracket_study(study, bracket_id), study)


def make_pruner(
    pruning: Pruning | None, steps: int | None, first_rung: int
) -> optuna.pruners.BasePruner:
    """Of a space; see `Pruning.rung_bounds`."""
    if pruning is None:
        return optuna.pruners.NopPruner()
    least, most = pruning.rung_bounds(steps, first_rung)
    if pruning.method == "asha":
        return Asha(min_resource=least, reduction_factor=pruning.factor)
    return Hyperband(
        min_resource=least, max_resource=most, reduction_factor=pruning.factor
    )


def _place(trial):
    """Slot and attempt (ledger.py); what has none stands for itself."""
    known = trial.user_attrs
    return known.get("slot", -1 - trial.number), known.get("attempt", 0)
