"""Export of a sweep to a study that Optuna reads."""

import optuna
import pytest

from analysis.export_sweep import export
from helpers.toy_sweep import toy_sweep
from helpers.toy_trial import DIVERGES, STEPS
from sweeps.search_space import Space, listed
from utils.errors import UserError


def test_optuna_loads_the_trials_of_a_sweep(tmp_path):
    points = [
        {"optim.lr": 0.1, "seed": 1, "optim.lr_scales": [["embedding", 0.1]]},
        {"optim.lr": 0.2, "seed": DIVERGES, "optim.lr_scales": []},
    ]
    workdir, output = tmp_path / "sweep", tmp_path / "new" / "study.db"
    assert toy_sweep(workdir, Space(listed(points))).run() == 0
    assert export(str(workdir), output) == 2
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{output}")
    done, diverged = study.trials
    assert study.direction.name == "MINIMIZE"
    assert (done.state.name, diverged.state.name) == ("COMPLETE", "PRUNED")
    assert done.value == pytest.approx(11 + 1 / STEPS)
    assert list(done.intermediate_values) == list(range(1, STEPS + 1))
    assert done.params["optim.lr_scales"] == '[["embedding", 0.1]]'
    assert (done.params["optim.lr"], done.params["seed"]) == (0.1, 1)
    assert done.user_attrs["chip_seconds"] > 0
    assert diverged.user_attrs["state"] == "diverged"
    with pytest.raises(UserError, match="exists: name a new file"):
        export(str(workdir), output)
