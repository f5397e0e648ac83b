"""Tests of training costs, and of learning curves against them."""

import jax
import numpy as np
import pytest

from analysis.report.runs import TrainingCost, read_run
from analysis.report.tables import axis_unit, curve_points, learning_curves, score_rows
from helpers.small_reports import METRICS, compare, make_run
from training.profiling import environment

RATES = {"flops_per_second": 1e9, "mfu": 0.25, "peak_memory_bytes": 2**20}


def with_rates(**changes):
    lines = [line | RATES | changes for line in METRICS if line["split"] == "train"]
    return [*lines, *(line for line in METRICS if line["split"] != "train")]


def test_counts_are_rates_times_seconds():
    lines = [line for line in METRICS if line["split"] == "train"]
    cost = TrainingCost.from_log(lines)
    assert cost.counts == pytest.approx(
        (0, 9 * 10, 9 * 10 + 50 * 10, 590 + 70 * 10, 1290 + 60 * 45)
    )
    assert cost.at(2, "tokens") == pytest.approx(590)
    assert cost.at(3.5, "seconds") == pytest.approx((30 + 75) / 2)  # between lines
    assert cost.at(2, "step") == 2
    assert cost.at(5, "tokens") is None  # not logged
    assert cost.at(2, "flops") is None
    assert TrainingCost.from_log([]) is None


def test_tokens_of_uneven_intervals_sum_up_exactly(tmp_path):
    """A log with 7 tokens per step and steps of uneven duration."""
    seconds = np.cumsum([3.0, 0.5, 4.0, 0.25])
    laps = np.diff([0.0, *seconds])
    lines = [
        {"step": 10 * (i + 1), "seconds": seconds[i], "tokens_per_second": 70 / lap}
        for i, lap in enumerate(laps)
    ]
    cost = TrainingCost.from_log(lines)
    assert cost.counts == pytest.approx([0, 70, 140, 210, 280])
    assert cost.at(25, "tokens") == pytest.approx(175)


def test_a_log_of_examples_is_counted_and_titled_in_examples(tmp_path):
    metrics = [
        {key.replace("tokens", "examples"): value for key, value in line.items()}
        for line in METRICS
    ]
    path = make_run(tmp_path / "a", task="classification", metrics=metrics)
    [run] = compare(path).runs
    assert run.unit == "examples"
    assert run.cost_at(2, "examples") == pytest.approx(590)
    chart = learning_curves([run], "loss", "examples")
    assert chart.title == "validation loss per example"
    assert chart.x_title == "training examples, thousands"
    [row, *_] = score_rows(compare(path))
    assert row.cells["examples/s"] == "60"
    assert "tokens/s" not in row.cells


def test_curves_against_flops_need_the_rates(tmp_path):
    plain = read_run(make_run(tmp_path / "a"))
    rated = read_run(make_run(tmp_path / "b", metrics=with_rates()))
    assert curve_points(plain, "loss", "flops") == []
    assert curve_points(rated, "loss", "flops") == [(20e9, 5.5), (75e9, 4.5)]
    chart = learning_curves([plain, rated], "loss", "flops")
    assert [curve.number for curve in chart.series] == [1]
    assert chart.x_title == "training GFLOPs"
    assert chart.x_ticks[-1][1] == "80"
    assert learning_curves([plain], "loss", "flops") is None


@pytest.mark.parametrize(
    ("most", "axis", "size", "words"),
    [
        (80, "tokens", 1, "training tokens"),
        (1000, "tokens", 1e3, "training tokens, thousands"),
        (5e13, "tokens", 1e9, "training tokens, billions"),
        (2e15, "flops", 1e15, "training PFLOPs"),
        (5e6, "seconds", 1, "seconds of training"),
    ],
)
def test_an_axis_has_a_unit_that_keeps_labels_short(most, axis, size, words):
    assert axis_unit(most, axis) == (size, words)


def test_mfu_memory_and_flops_have_columns(tmp_path):
    metrics = with_rates()
    metrics[1] = metrics[1] | {"peak_memory_bytes": 3 * 2**20}
    [row] = [
        row
        for row in score_rows(compare(make_run(tmp_path / "a", metrics=metrics)))
        if row.run == 0
    ]
    assert row.cells["mfu"] == "25%"
    assert row.cells["peak memory, MiB"] == "3"  # of all lines the most
    assert row.cells["training FLOPs"] == "7.50e+10"


def test_peak_memory_is_of_the_fullest_device_or_else_of_the_process(
    monkeypatch, tmp_path
):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    status = tmp_path / "status"
    status.write_text("VmPeak:\t    9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    7 kB\n")
    monkeypatch.setattr(environment, "STATUS", status)
    devices = [Device({"peak_bytes_in_use": 5}), Device({"peak_bytes_in_use": 8})]
    for found, expected in ((devices, 8), ([Device(None)], 2**21)):
        monkeypatch.setattr(jax, "local_devices", lambda found=found: found)
        assert environment.peak_memory_bytes() == expected
    status.unlink()
    assert environment.peak_memory_bytes() is None
