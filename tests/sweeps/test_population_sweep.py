"""Sweeps of populations: which trials train together, and how each of them ends."""

import functools
import json
import sys
import threading
import time

import pytest

from benchmarks import population as benchmark
from helpers.entry_points import assert_refused, run
from helpers.toy_sweep import results, toy_sweep
from helpers.toy_trial import DIVERGES, FAILS_ONCE, STEPS, WAITS
from sweeps.scheduler import can_resume_together, common_part
from sweeps.search_space import (
    Space,
    asha,
    choice,
    grid,
    integers,
    listed,
    log_uniform,
    tpe,
)

sweep = functools.partial(toy_sweep, population=4, workers=1, program="toy_population")


def population_sizes(folder, trial):
    """Returns the number of trials in a trial's process, for each of its starts."""
    path = folder / "trials" / f"{trial:04}" / "with"
    return [int(line) for line in path.read_text().split()]


def test_trials_that_differ_in_vmappable_keys_train_together(tmp_path):
    points = grid(
        {"model.width": [64, 32], "optim.lr": [1e-3, 2e-3], "seed": [0, 1, 2]}
    )
    assert sweep(tmp_path, Space(points)).run() == 0
    found = results(tmp_path)
    assert [row["state"] for row in found] == ["done"] * 12
    # 6 of each width: 4 and then 2.
    assert sorted(population_sizes(tmp_path, n)[0] for n in range(6)) == [
        2,
        2,
        4,
        4,
        4,
        4,
    ]
    for row in found:
        point = row["point"]
        expected = point["optim.lr"] * 100 + point["seed"] + 1 / STEPS
        assert row["value"] == pytest.approx(expected)


def test_a_trial_that_diverges_ends_alone(tmp_path):
    space = Space(listed([{"seed": 0}, {"seed": DIVERGES}, {"seed": 2}]))
    assert sweep(tmp_path, space).run() == 0
    assert [row["state"] for row in results(tmp_path)] == ["done", "diverged", "done"]
    assert [population_sizes(tmp_path, n) for n in range(3)] == [[3]] * 3


def test_a_bad_trial_is_pruned_while_the_others_continue(tmp_path):
    points = listed([{"seed": 0}, {"seed": WAITS}])
    assert sweep(tmp_path, Space(points, pruning=asha(factor=2))).run() == 0
    assert [row["state"] for row in results(tmp_path)] == ["done", "pruned"]
    assert results(tmp_path)[0]["step"] == STEPS


def test_all_trials_of_a_process_that_fails_are_retried(tmp_path):
    points = [{"seed": 0}, {"seed": FAILS_ONCE}]
    assert sweep(tmp_path, Space(listed(points), retries=1)).run() == 0
    assert [row["state"] for row in results(tmp_path)] == ["done", "done"]
    assert population_sizes(tmp_path, 0) == [2, 2]


def test_a_stopped_sweep_is_resumed(tmp_path):
    space, stopped = Space(listed([{"seed": 0}, {"seed": WAITS}])), threading.Event()
    running = sweep(tmp_path, space, stopped=stopped)

    def stop_later():
        while not (tmp_path / "trials" / "0001" / "metrics.jsonl").exists():
            time.sleep(0.01)
        stopped.set()

    thread = threading.Thread(target=stop_later)
    thread.start()
    assert running.run() == 75
    thread.join()
    assert [row["state"] for row in results(tmp_path)] == ["open", "open"]
    (tmp_path / "trials" / "0001" / "go").touch()
    assert sweep(tmp_path, space).run() == 0
    assert [row["state"] for row in results(tmp_path)] == ["done", "done"]
    assert [population_sizes(tmp_path, n) for n in range(2)] == [[2, 2]] * 2
    log = (tmp_path / "logs" / "0000.log").read_text().splitlines()
    assert log[0] == "starts after 0 0"
    assert log[1] != log[0]


def test_settings_that_are_not_vmappable_must_be_equal():
    assert common_part({"optim.lr": 1e-3, "seed": 1}) == {}
    assert common_part({"optim.clip_norm": 0.0, "z_loss": 1.0}) == {
        "optim.clip_norm": False,
        "z_loss": 1.0,
    }
    assert common_part({"optim.clip_norm": 0.5}) == {"optim.clip_norm": True}


def test_a_rate_of_none_is_not_vmappable():
    key = "model.feed_forward_dropout"
    assert common_part({key: None}) == {key: None}
    assert common_part({key: 0.0}) == common_part({key: 0.1}) == {}


def test_values_that_tpe_samples_decide_which_trials_train_together(tmp_path):
    space = Space(tpe({"model.width": choice(32, 64), "seed": integers(0, 9)}, 6))
    assert sweep(tmp_path, space).run() == 0
    widths = [row["point"]["model.width"] for row in results(tmp_path)]
    assert set(widths) == {32, 64}
    sizes = [population_sizes(tmp_path, n) for n in range(6)]
    assert all(1 <= size <= 4 for (size,) in sizes)
    assert max(sizes) > [1]


def test_trials_with_the_same_tuples_train_together(tmp_path):
    points = {"optim.lr_scales": [(("embedding", 0.1),)], "seed": [0, 1, 2]}
    assert sweep(tmp_path, Space(grid(points))).run() == 0
    assert [population_sizes(tmp_path, n) for n in range(3)] == [[3]] * 3


def test_an_invalid_point_fails_alone(tmp_path):
    space = Space(grid({"optim.lr": [1e-3, -1.0, 2e-3]}), retries=0)
    assert sweep(tmp_path, space).run() == 0
    rows = results(tmp_path)
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert "optim.lr=-1.0" in rows[1]["error"]
    assert [population_sizes(tmp_path, n) for n in (0, 2)] == [[2]] * 2


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"5", "10"}, {"10", "15"}, True),
        ({"5"}, {"10"}, False),
        ({"5", "10"}, set(), False),
        ({"5"}, set(), True),
        (set(), set(), True),
    ],
)
def test_trials_resume_together_if_they_share_a_step(one, other, expected):
    assert (
        can_resume_together(one, other) is can_resume_together(other, one) is expected
    )


def test_three_trials_resume_together_if_all_share_a_step():
    assert can_resume_together({"1", "2"}, {"2", "3"}, {"2"})
    assert not can_resume_together(
        {"1", "3"}, {"1", "2"}, {"2", "3"}
    )  # though any two do
    assert can_resume_together({"1"}, {"1"}, set())
    assert not can_resume_together({"1"}, {"2"}, set())


def test_points_of_tpe_train_together(tmp_path):
    space = Space(tpe({"optim.lr": log_uniform(1e-4, 1e-2)}, 6), seed=1)
    assert sweep(tmp_path, space, population=3).run() == 0
    assert [population_sizes(tmp_path, n) for n in range(6)] == [[3]] * 6


def test_a_population_below_one_is_refused(tmp_path):
    done = run(
        "sweep.py",
        "--config=configs/cldr.py:rnn",
        "--space=configs/sweeps/seeds.py",
        f"--workdir={tmp_path / 'w'}",
        "--population=0",
    )
    assert_refused(done, "--population=0 must be at least 1")


def test_an_unsupported_config_is_refused_before_anything_is_written(tmp_path):
    done = run(
        "sweep.py",
        "--config=configs/cldr.py:rnn",
        "--config.init_from=somewhere",
        "--space=configs/sweeps/seeds.py",
        f"--workdir={tmp_path / 'w'}",
        "--population=2",
    )
    assert_refused(done, "init_from='somewhere'", "random parameters")
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_benchmark_computes_trials_per_hour(monkeypatch, capsys):
    flags = ["--tiny", "--members=2", "--repeats=2", "--steps=10"]
    monkeypatch.setattr(sys, "argv", ["population", *flags])
    assert benchmark.main() == 0
    found = json.loads(capsys.readouterr().out)
    one, both = (found["step_seconds"][name] for name in ("alone", "together"))
    assert found["speedup"] == pytest.approx(2 * one / both / found["devices_used"])
    firsts = [found["first_step_seconds"][name] for name in ("alone", "together")]
    hourly = [found["trials_an_hour"][name] for name in ("alone", "together")]
    assert hourly[0] == pytest.approx(3600 / (firsts[0] + 10 * one))
    assert hourly[1] == pytest.approx(7200 / (firsts[1] + 10 * both))
