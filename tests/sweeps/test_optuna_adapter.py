"""Private parts of Optuna that sweeps/optuna_adapter.py uses: as they are expected."""

import inspect

import optuna
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState, create_trial

from sweeps.optuna_adapter import Hyperband, LatestAttempts, live_trial, make_pruner
from sweeps.search_space import asha, hyperband


def study_with(*attributes, pruner=None):
    """Returns a study with a running trial for each dictionary of attributes."""
    study = optuna.create_study(pruner=pruner)
    for attrs in attributes:
        study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attrs))
    return study


def attempt(trial, index):
    return {"trial": trial, "attempt": index}


def test_an_added_trial_is_written_to_through_its_private_id():
    study = study_with(attempt(0, 0), attempt(1, 0))
    frozen = study.get_trials()[1]
    live_trial(study, frozen).set_user_attr("point", {"x": 1})
    assert study.get_trials()[1].user_attrs["point"] == {"x": 1}
    assert "point" not in study.get_trials()[0].user_attrs


def test_hyperband_calls_the_private_methods_that_are_overridden(monkeypatch):
    names = {"_get_bracket_id": "trial", "_create_bracket_study": "bracket_id"}
    for name, argument in names.items():
        signature = inspect.signature(getattr(HyperbandPruner, name))
        assert list(signature.parameters) == ["self", "study", argument]
    calls = []
    for name in names:
        original = getattr(Hyperband, name)

        def spy(self, *arguments, name=name, original=original):
            calls.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(Hyperband, name, spy)
    pruner = make_pruner(hyperband(factor=2), steps=8, first_validation=1)
    study = study_with(attempt(0, 0), pruner=pruner)
    trial = live_trial(study, study.get_trials()[0])
    trial.report(1.0, 1)
    trial.should_prune()
    assert set(calls) == set(names)


def test_the_bracket_depends_on_the_trial_and_not_on_the_attempt():
    pruner = make_pruner(hyperband(factor=2), steps=8, first_validation=1)
    rows = [attempt(trial, index) for trial in range(8) for index in range(3)]
    study = study_with(*rows, pruner=pruner)
    pruner.prune(study, study.get_trials()[0])  # makes the brackets
    brackets = [pruner._get_bracket_id(study, trial) for trial in study.get_trials()]
    assert brackets == [brackets[3 * trial] for trial in range(8) for _ in range(3)]
    assert len(set(brackets)) > 1


def test_pruners_read_trials_through_the_view_of_latest_attempts(monkeypatch):
    study = study_with(attempt(0, 0), attempt(0, 1), attempt(1, 0))
    view = LatestAttempts(study, study)
    assert [trial.number for trial in view.get_trials()] == [1, 2]
    calls, original = [], LatestAttempts.get_trials

    def spy(self, *arguments, **options):
        calls.append(self)
        return original(self, *arguments, **options)

    monkeypatch.setattr(LatestAttempts, "get_trials", spy)
    for pruning in (asha(factor=2), hyperband(factor=2)):
        calls.clear()
        pruner = make_pruner(pruning, steps=8, first_validation=1)
        study = study_with(attempt(0, 0), attempt(0, 1), attempt(1, 0), pruner=pruner)
        trial = live_trial(study, study.get_trials()[2])
        trial.report(1.0, 8)  # at the first rung of each bracket, or above
        trial.should_prune()
        assert calls
