"""A sweep in a report: its trials, the best config, and what mattered."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.report.importance import explained, importances, ranks
from analysis.report.runs import read_runs
from analysis.report.sweep_results import config_text, is_sweep, open_sweep
from configs import base
from helpers.small_reports import (
    content_of,
    make_run,
    make_sweep,
    page_of,
    text_of,
    write_json,
)
from utils.errors import UserError


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("sweeps") / "lr")


def test_a_key_that_decides_has_all_the_importance():
    draw = np.random.default_rng(0)
    points = [
        {"a": float(a), "b": draw.random(), "c": "xyz"[draw.integers(3)]}
        for a in draw.random(60)
    ]
    found = importances(points, [np.exp(9 * point["a"]) for point in points])
    assert next(iter(found)) == "a"
    assert found["a"] > 0.8
    assert max(found["b"], found["c"]) < 0.15


def test_chance_explains_nothing_on_average():
    draw = np.random.default_rng(1)
    found = [
        explained(list(np.arange(20) % 4), draw.permutation(20).astype(float))
        for _ in range(400)
    ]
    assert np.mean(found) < 0.1  # never below 0, so not 0 either
    assert np.median(found) < 0.05


def test_importance_is_that_of_ranks_so_one_astray_does_not_decide():
    points = [{"a": n % 2} for n in range(10)]
    values = [n % 2 + n / 100 for n in range(10)]
    calm = importances(points, values)
    values[9] = 1e12
    assert importances(points, values) == calm
    assert ranks([3, 1, 3, 2]).tolist() == [2.5, 0, 2.5, 1]


def test_too_few_trials_say_nothing():
    assert importances([{"a": 1}, {"a": 2}], [1.0, 2.0]) == {"a": None}
    assert importances([{"a": n} for n in range(4)], [1.0, 2.0, 3, 4]) == {"a": None}
    assert importances([{"a": 1}] * 9, range(9)) == {"a": None}  # it never varies


def test_a_sweep_stands_for_its_trials_that_are_done(sweep):
    runs = read_runs([sweep])
    assert len(runs) == 16
    assert runs[3].label == "rnn (0003)"
    assert runs[3].scored["validation"].card["scores"]["loss"] == {"value": 4.5}
    [left_out] = [text for text in content_of(sweep).warnings() if "left out" in text]
    assert left_out.startswith("1 of 17 trials")


def test_the_best_trial_is_that_of_the_direction(sweep, tmp_path):
    assert open_sweep(sweep).best["trial"] == 0
    assert (
        open_sweep(make_sweep(tmp_path / "up", 4, direction="max")).best["trial"] == 3
    )


def test_the_page_tells_what_mattered(sweep):
    _, tree = page_of(sweep)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert "Sweep lr" in headings
    rows = [[text_of(cell) for cell in row] for row in tree.iter("tr")]
    [rate] = [row for row in rows if row[0] == "optim.lr" and len(row) == 3]
    [width] = [row for row in rows if row[0] == "model.width" and len(row) == 3]
    assert float(rate[1]) > 0.9
    assert float(width[1]) < 0.1


def test_the_best_config_is_a_file_that_gives_it_again(tmp_path):
    cfg = base.get_config("transformer")
    cfg.model.update(width=96, cutoffs=(10, 20))
    cfg.optim.lr_scales = (("embedding", 0.1),)
    cfg.data.name = "cldr/en-de"
    path = tmp_path / "best.py"
    stored = json.loads(cfg.to_json_best_effort())
    path.write_text(config_text(stored, "Trial 7."), encoding="utf8")
    spec = importlib.util.spec_from_file_location("best", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().to_dict() == cfg.to_dict()
    assert module.get_config().is_locked
    assert "dropout" not in path.read_text()  # what is as ever is not repeated


def test_what_is_no_whole_sweep_is_told_in_one_line(tmp_path):
    empty = make_sweep(tmp_path / "empty", 0)
    with pytest.raises(UserError, match="no trial of the sweep is done"):
        read_runs([empty])
    write_json(tmp_path / "broken" / "sweep.json", {"config": {}})
    assert is_sweep(tmp_path / "broken")
    with pytest.raises(UserError, match="damaged sweep"):
        read_runs([str(tmp_path / "broken")])


def test_trials_of_other_data_are_warned_of(tmp_path):
    sweep = make_sweep(tmp_path / "sizes")
    for number, data in ((0, "aaaa"), (1, "bbbb")):
        about = Path(sweep) / "trials" / f"{number:04}" / "about.json"
        write_json(about, json.loads(about.read_text()) | {"hashes": {"data": data}})
    told = content_of(sweep).comparison.warnings()[0]
    assert told.startswith("different data (")
    assert "aaaa" in told
    assert "bbbb" in told


def test_a_sweep_and_a_run_of_one_split_stand_together(sweep, tmp_path):
    other = make_run(tmp_path / "a", "transformer", split="validation")
    assert content_of(sweep, other).comparison.split == "validation"
