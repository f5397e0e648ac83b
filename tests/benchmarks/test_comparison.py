"""How subjects are timed in turn, and what is made of it."""

import os
import sys
import time

import pytest

from benchmarks import data
from benchmarks.harness import interleaved
from benchmarks.harness.comparison import OURS, compare, ratio
from benchmarks.harness.interleaved import Plan, chunk, measure
from benchmarks.harness.protocol import Missing, Process
from benchmarks.harness.workloads import Product
from helpers.printed_lines import lines_of


def fake(**flags):
    more = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "tests.helpers.fake_subject", *more]


@pytest.fixture
def started():
    """Starts fakes, and ends them."""
    running = []

    def start(**flags):
        running.append(Process("fake", fake(**flags), 1))
        return running[-1].begin()

    yield start
    for process in running:
        process.close()


def test_answers_stand_alone_whatever_libraries_print(started):
    process = started(seconds=0.02)
    assert len(process.ask("warm", 2)) == 2
    seconds = process.ask("go", 3)
    assert len(seconds) == 3
    assert min(seconds) >= 0.02
    facts = process.ask("facts")
    assert facts["steps_taken"] == 5
    assert 1e6 < facts["imported_bytes"] <= facts["peak_bytes"] < 1e9
    first, second = process.ask("products")
    assert first >= 0.001
    assert second >= 0.006  # 3 times a batch of 2


def test_a_module_that_is_not_there_is_named(started):
    with pytest.raises(Missing, match="no_such_library"):
        started(needs="no_such_library")


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(Missing, match="/nowhere/python"):
        Process("fake", ["/nowhere/python", "-c", ""], 1)


def test_a_failed_process_is_reported_with_its_last_line(started):
    process = started(dies_at=3)
    process.ask("warm", 2)
    with pytest.raises(Missing, match="no memory left"):
        process.ask("go", 1)


class Recorded:
    """A process that writes down when it is asked."""

    pid = os.getpid()

    def __init__(self, name, log, times=()):
        self.name, self.log, self.times = name, log, iter(times)

    def ask(self, command, count):
        self.log.append(f"{command} {self.name}")
        return [next(self.times, 1.0)] * count


def test_subjects_take_turns_there_and_back(monkeypatch):
    monkeypatch.setattr(interleaved, "share_of_others", lambda *_: 0.0)
    log = []
    found = measure([Recorded(name, log) for name in "ABC"], Plan(rounds=3, steps=2))
    assert [entry[-1] for entry in log if entry.startswith("go")] == list("ABCCBAABC")
    assert log[:3] == ["warm A", "warm B", "warm C"]
    assert all(len(times.seconds) == 6 for times in found.values())


@pytest.mark.parametrize(
    ("shares", "kept", "times"),
    [
        ((0.5, 0.02, 0.0), 0.02, 2),  # quiet at last
        ((0.5, 0.2, 0.3, 0.01), 0.2, 3),  # never: the quietest of three
        ((0.06,), 0.06, 1),
    ],
)
def test_a_disturbed_chunk_is_repeated_and_the_quietest_counts(
    monkeypatch, shares, kept, times
):
    told = iter(shares)
    monkeypatch.setattr(interleaved, "share_of_others", lambda *_: next(told))
    log = []
    process = Recorded("A", log, times=shares)
    seconds, others = chunk(process, Plan(steps=1, tries=3, threshold=0.06))
    assert (seconds, others) == ([kept], kept)
    assert len(log) == times


def test_own_work_is_not_that_of_others():
    before, own = interleaved.busy_seconds(), interleaved.own_seconds(os.getpid())
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    worked = interleaved.own_seconds(os.getpid()) - own
    assert worked == pytest.approx(0.3, abs=0.1)
    after = interleaved.busy_seconds()
    assert after[0] - before[0] >= worked - 0.05
    with_others = interleaved.share_of_others(before, 0.0)
    assert interleaved.share_of_others(before, worked) < with_others
    assert interleaved.share_of_others(before, 1e9) == 0.0


def options(*more):
    flags = ["--rounds=2", "--steps=2", "--warm=1", "--tries=1", "--threads=1", *more]
    return data.parse(flags)


GOALS = {"fastest": 2.0, "original": 1.5}


def test_a_peer_that_is_slowed_on_purpose_changes_the_ratio(capsys):
    found = {}
    for slower in (1, 4):
        commands = {
            OURS: fake(seconds=0.02),
            "quick": fake(seconds=0.03, slower=slower),
            "original": fake(seconds=0.06),
        }
        found[slower] = compare({}, commands, [], 100, GOALS, options())
    even, slowed = found[1], found[4]
    assert even["fastest_peer"] == "quick"
    assert slowed["fastest_peer"] == "original"
    change = slowed["ratios"]["quick"]["ratio"] / even["ratios"]["quick"]["ratio"]
    assert change == pytest.approx(4, rel=0.3)
    assert not even["goals"]["fastest"]["is_met"]
    assert slowed["goals"]["fastest"]["is_met"]
    assert slowed["goals"]["original"]["is_met"]
    lines = lines_of(capsys)
    assert [line.get("subject") for line in lines[:4]] == [
        OURS,
        "quick",
        "original",
        None,
    ]
    assert lines[0]["steps"] == 4
    assert lines[0]["tokens_per_second"] == pytest.approx(
        100 / lines[0]["seconds"]["median"]
    )
    for one in even["ratios"].values():
        assert one["low"] <= one["ratio"] <= one["high"]


def test_a_missing_peer_is_named_and_the_rest_goes_on(capsys):
    commands = {
        OURS: fake(seconds=0.01),
        "absent": fake(needs="no_such_library"),
        "dying": fake(dies_at=2),
    }
    summary = compare({"work": "x"}, commands, [], 1, GOALS, options())
    assert summary["missing"] == ["absent", "dying"]
    assert summary["goals"]["fastest"] == {"goal": 2.0, "is_met": None}
    told = {line.get("subject"): line for line in lines_of(capsys)}
    assert "no_such_library" in told["absent"]["missing"]
    assert "no memory left" in told["dying"]["missing"]
    assert told[OURS]["seconds"]["median"] >= 0.01


def test_the_fraction_of_peak_is_computed_from_the_products(capsys):
    products = [Product(1, 10, 10, 10), Product(2, 10, 10, 10, count=3)]
    compare({}, {OURS: fake(seconds=0.07)}, products, 1, {}, options())
    line, _ = lines_of(capsys)
    assert line["flops"] == 2 * 1000 * (1 + 2 * 3)
    # Products sleep for 7 ms in all, a step for ten times as long.
    assert line["fraction_of_peak"] == pytest.approx(0.1, rel=0.3)


def test_a_ratio_has_the_range_of_both_quartiles():
    own = {"low": 1.0, "median": 2.0, "high": 4.0}
    other = {"low": 4.0, "median": 6.0, "high": 8.0}
    assert ratio(own, other) == {"ratio": 3.0, "low": 1.0, "high": 8.0}
