"""Tests of a sweep in a report: trials, best config, and importances."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import optuna
import pytest

from analysis.report.renderers import render_json, render_markdown
from analysis.report.runs import read_runs
from analysis.report.sweep_results import (
    config_source,
    importances,
    is_sweep,
    open_sweep,
)
from configs import base
from helpers import fake_bucket
from helpers.small_reports import (
    content_of,
    make_run,
    make_sweep,
    page_of,
    text_of,
    write_json,
)
from sweeps.launch import VERSION
from utils.errors import UserError


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("sweeps") / "lr")


def random_points(count, seed=0):
    draw = np.random.default_rng(seed)
    return [
        {"a": float(a), "b": draw.random(), "c": "xyz"[draw.integers(3)]}
        for a in draw.random(count)
    ]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_key_that_decides_has_most_of_the_importance(direction):
    points = random_points(60)
    found = importances(points, [np.exp(9 * point["a"]) for point in points], direction)
    assert next(iter(found)) == "a"
    assert found["a"] > 0.7
    assert max(found["b"], found["c"]) < 0.2
    assert sum(found.values()) == pytest.approx(1.0)


def test_importances_are_those_of_optuna():
    def objective(trial):
        a, b = trial.suggest_float("a", 0.0, 1.0), trial.suggest_int("b", 1, 9)
        return a + 0.1 * b * (trial.suggest_categorical("c", ["x", "y"]) == "x")

    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=40)
    points = [trial.params for trial in study.trials]
    found = importances(points, [trial.value for trial in study.trials])
    expected = optuna.importance.get_param_importances(study)
    assert list(found) == list(expected)
    # Optuna knows the ranges that were sampled from, we those of the trials.
    assert found == pytest.approx(expected, abs=0.02)


def test_one_diverged_trial_does_not_change_the_importances():
    points = random_points(20)
    values = [point["a"] for point in points]
    expected = importances(points, values)
    values[int(np.argmax(values))] = 1e12
    assert importances(points, values) == expected


def test_values_of_any_kind_have_an_importance():
    points = [
        {"cutoffs": [n % 2, 9], "flag": n % 3 == 0, "lr": 10.0 ** -(n % 5)}
        for n in range(30)
    ]
    found = importances(points, [n % 2 for n in range(30)])
    assert next(iter(found)) == "cutoffs"
    assert found.keys() == {"cutoffs", "flag", "lr"}


def test_too_few_trials_have_no_importances():
    assert importances([{"a": 1}, {"a": 2}], [1.0, 2.0]) == {"a": None}
    assert importances([{"a": 1}] * 9, range(9)) == {"a": None}  # it never varies


def test_a_sweep_yields_the_runs_of_its_finished_trials(sweep):
    runs = read_runs([sweep])
    assert len(runs) == 16
    assert runs[3].label == "rnn (0003)"
    assert runs[3].results["validation"].content["scores"]["loss"] == {"value": 4.5}
    [left_out] = [text for text in content_of(sweep).warnings() if "left out" in text]
    assert left_out.startswith("1 of 17 trials")


def test_the_best_trial_depends_on_the_direction(sweep, tmp_path):
    assert open_sweep(sweep).best["trial"] == 0
    assert (
        open_sweep(make_sweep(tmp_path / "up", 4, direction="max")).best["trial"] == 3
    )


def test_the_page_shows_the_importance_of_keys(sweep):
    _, tree = page_of(sweep)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert "Sweep lr" in headings
    rows = [[text_of(cell) for cell in row] for row in tree.iter("tr")]
    [rate] = [row for row in rows if row[0] == "optim.lr" and len(row) == 3]
    [width] = [row for row in rows if row[0] == "model.width" and len(row) == 3]
    assert float(rate[1]) > 0.9
    assert float(width[1]) < 0.1


def test_a_report_states_what_a_sweep_cost_and_lost(sweep):
    page, _ = page_of(sweep)
    assert "4.00 chip-hours; 0.40 hours lost to interruptions" in page
    assert "4.00 chip-hours" in render_markdown(content_of(sweep))


def test_a_sweep_in_a_bucket_is_read_like_one_on_a_disk(tmp_path, monkeypatch):
    folder = Path(make_sweep(tmp_path / "lr", 4))
    with fake_bucket.serve() as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for path in folder.rglob("*.*"):
            name = f"sweeps/{path.relative_to(tmp_path)}"
            bucket.objects["bucket", name] = path.read_bytes(), 1
        paths = "gs://bucket/sweeps/lr", str(folder)
        there, here = (json.loads(render_json(content_of(path))) for path in paths)
        assert open_sweep(paths[0]).best_config().startswith('"""Trial 0 of lr:')
    assert there["sweeps"][0]["directory"] == "gs://bucket/sweeps/lr"
    for key in ("best", "importances", "trials"):
        assert there["sweeps"][0][key] == here["sweeps"][0][key]
    scores = [[one["scores"] for one in document["runs"]] for document in (there, here)]
    assert scores[0] == scores[1]


def test_the_best_config_is_a_file_that_reproduces_it(tmp_path):
    cfg = base.get_config("transformer")
    cfg.model.update(width=96, cutoffs=(10, 20))
    cfg.optim.lr_scales = (("embedding", 0.1),)
    cfg.data.name = "cldr/en-de"
    path = tmp_path / "best.py"
    stored = json.loads(cfg.to_json_best_effort())
    path.write_text(config_source(stored, "Trial 7."), encoding="utf8")
    spec = importlib.util.spec_from_file_location("best", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().to_dict() == cfg.to_dict()
    assert module.get_config().is_locked
    assert "dropout" not in path.read_text()  # what is as ever is not repeated


def test_an_incomplete_sweep_is_refused_in_one_line(tmp_path):
    empty = make_sweep(tmp_path / "empty", 0)
    with pytest.raises(UserError, match="no trial of the sweep has finished"):
        read_runs([empty])
    broken, description = tmp_path / "broken", {"config": {}, "version": VERSION}
    write_json(broken / "sweep.json", description)
    assert is_sweep(broken)
    with pytest.raises(UserError, match="damaged sweep"):
        read_runs([str(broken)])
    write_json(broken / "sweep.json", {"config": {}})
    with pytest.raises(UserError, match="another version of this code"):
        read_runs([str(broken)])


def test_trials_with_other_data_cause_a_warning(tmp_path):
    sweep = make_sweep(tmp_path / "sizes")
    for number, data in ((0, "aaaa"), (1, "bbbb")):
        about = Path(sweep) / "trials" / f"{number:04}" / "about.json"
        write_json(about, json.loads(about.read_text()) | {"hashes": {"data": data}})
    text = content_of(sweep).comparison.warnings()[0]
    assert text.startswith("different data (")
    assert "aaaa" in text
    assert "bbbb" in text


def test_a_sweep_and_a_run_scored_on_one_split_can_be_compared(sweep, tmp_path):
    other = make_run(tmp_path / "a", "transformer", split="validation")
    assert content_of(sweep, other).comparison.split == "validation"
