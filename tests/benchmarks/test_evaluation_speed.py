"""The evaluation-speed benchmark: tiny, and what its three ways compute."""

import functools
import json
import statistics
import sys

import numpy as np
import pytest

from benchmarks import evaluation_speed
from benchmarks.evaluation_speed import Windows, WithMemory, parse, spread
from benchmarks.harness.cli import TINY

LENGTH = 16
OPTIONS = parse(["--tiny"])


@functools.cache
def ways():
    return (
        WithMemory(LENGTH, OPTIONS),
        Windows(LENGTH, OPTIONS, 1, last_only=False),
        Windows(LENGTH, OPTIONS, 2, last_only=True),
    )


def test_the_windows_predict_the_same_one_by_one_and_side_by_side():
    _, naive, batched = ways()
    count = min(naive.tokens, batched.tokens)
    np.testing.assert_allclose(naive()[:count], batched()[:count], rtol=1e-5)
    assert naive().std() > 0


def test_the_memory_is_that_of_an_evaluation():
    memory = ways()[0]
    assert memory.found.evaluation_model.config.memory_length == LENGTH
    assert memory.tokens == OPTIONS.segment * OPTIONS.segments
    assert memory() == pytest.approx(np.log(256), rel=0.5)


def test_counted_work_is_that_of_the_formulas():
    width, inner = TINY["width"], TINY["feed_forward"]
    memory, naive, batched = (way.flops() for way in ways())
    vocabulary = 2 * width * ways()[0].found.model.vocab_size
    layer = 2 * (4 * width * width + 2 * width * inner)
    slots = LENGTH + OPTIONS.segment
    # Scores of content and of distances, and the sum of values, over all slots.
    expected = layer + vocabulary + 3 * 2 * width * slots
    assert memory == expected
    window = LENGTH * (layer + 2 * 2 * width * LENGTH)
    assert naive == window + LENGTH * vocabulary
    assert batched == window + vocabulary


def test_quartiles_are_those_of_the_measurements():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert spread(values) == {"median": statistics.median(values), "low": 2, "high": 4}


@pytest.mark.slow
def test_a_tiny_run_prints_a_line_a_length(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluation_speed", "--tiny"])
    assert evaluation_speed.main() == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["length"] for line in lines] == [16, 32]
    for line in lines:
        seconds = line["seconds_per_token"]
        assert all(0 < way["low"] <= way["median"] for way in seconds.values())
        expected = seconds["naive"]["median"] / seconds["memory"]["median"]
        assert line["ratio"]["naive"] == pytest.approx(expected)
        assert line["versions"]["jax"]
    short, long = (line["flop_ratio"] for line in lines)
    assert 1 < short["batched"] < short["naive"]
    assert short["naive"] < long["naive"]


@pytest.mark.parametrize("flag", ["--lengths=8,x", "--rounds=1", "--segment=0"])
def test_a_wrong_flag_is_refused(flag, capsys):
    with pytest.raises(SystemExit) as refused:
        parse([flag])
    assert refused.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_sizes_that_do_not_fit_are_told_in_one_line(monkeypatch, capsys):
    argv = ["evaluation_speed", "--width=10", "--heads=4", "--lengths=8"]
    monkeypatch.setattr(sys, "argv", argv)
    assert evaluation_speed.main() == 2
    told = capsys.readouterr().err
    assert "heads" in told
    assert told.count("\n") == 1
