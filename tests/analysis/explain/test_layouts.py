"""Steps of runs on several devices are explained on these and on one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.explain.explanation import explain
from helpers.small_runs import config, small_corpora
from sweeps.population import train
from training.loop import ExitStatus

SCRIPT = Path(__file__).parents[2] / "helpers" / "explained_layouts.py"
CHANGES = {
    "steps": 3,
    "model.dropout": 0.1,
    "every.log": 1,
    "every.eval": 0,
    "data.batch_size": 8,
    "eval.batch_size": 64,
    "eval.segment_length": 64,
    "optim.name": "sgd",
}
# The second row of each device under pmap, and of each microbatch.
ROWS = {"mesh": [1], "pmap": [1, 3, 5, 7], "microbatches": [2]}


@pytest.mark.slow
def test_runs_of_any_layout_are_explained_on_any_devices(tmp_path):
    for devices in (4, 1):
        command = (sys.executable, str(SCRIPT), str(devices), str(tmp_path))
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout.decode().splitlines()[-1])
        assert found.keys() == ROWS.keys()
        for layout, numbers in found.items():
            assert numbers["explained"] == pytest.approx(numbers["logged"], rel=1e-5)
            logged, reference = numbers["reference"]
            assert reference == pytest.approx(logged, rel=1e-5)
            assert (numbers["primitive"], numbers["rows"]) == ("sqrt", ROWS[layout])


@pytest.mark.slow
def test_a_trial_of_a_population_is_explained(tmp_path, monkeypatch):
    small_corpora(monkeypatch)
    configs = [
        config(
            "python_stdlib", "transformer_xl", tmp_path, **CHANGES, **{"optim.lr": lr}
        )
        for lr in (1e-3, 1e-2)
    ]
    workdirs = [tmp_path / "a", tmp_path / "b"]
    assert train(configs, workdirs) == [ExitStatus.FINISHED] * 2
    for workdir in workdirs:
        step = explain(str(workdir), 3, with_rows=False)
        rows = map(json.loads, (workdir / "metrics.jsonl").open())
        logged = {row["step"]: row["loss"] for row in rows if row["split"] == "train"}
        assert step.examination.loss == pytest.approx(logged[3], rel=1e-5)
        assert step.reference.examination.loss == pytest.approx(logged[2], rel=1e-5)
