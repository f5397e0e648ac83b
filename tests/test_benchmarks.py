"""What times ours against peers: turns, disturbances, ratios, and its own counts."""

import ast
import functools
import json
import os
import sys
import time

import flax.linen as nn
import jax
import numpy as np
import pytest
from conftest import ROOT

from benchmarks import comparison, data, decode, rounds, startup, train_step
from benchmarks.comparison import OURS, compare, ratio
from benchmarks.ours import TrainStep, config, experiment, num_parameters
from benchmarks.protocol import Missing, Process, product_seconds
from benchmarks.random_corpora import Sentences, Text, VariedSentences
from benchmarks.rounds import Plan, chunk, measure
from benchmarks.works import (
    WORKS,
    Product,
    decoding_products,
    flops,
    training_products,
)

PEERS = ROOT / "benchmarks" / "peers"


def fake(**flags):
    more = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "tests.fake_subject", *more]


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


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# Counts of the matrix products.


@pytest.mark.parametrize(
    ("name", "billions"),  # of a step: counted by hand, see the peers' figures
    [("small", 94.6), ("base", 328.2), ("xl_small", 80.3), ("rnn_small", 50.4)],
)
def test_a_steps_products_are_those_counted_by_hand(name, billions):
    assert flops(training_products(WORKS[name])) / 1e9 == pytest.approx(
        billions, rel=2e-3
    )


@pytest.mark.parametrize(("beam", "billions"), [(1, 31.4), (4, 91.3)])
def test_a_searchs_products_are_those_counted_by_hand(beam, billions):
    found = flops(decoding_products(WORKS["small"], beam)) / 1e9
    assert found == pytest.approx(billions, rel=2e-3)


def test_without_distances_their_products_are_gone():
    found = flops(training_products(WORKS["xl_small"], distances=False))
    assert found / 1e9 == pytest.approx(74.8, rel=2e-3)


# Models: ours are those that peers build.


@pytest.mark.parametrize(
    ("name", "parameters"),  # of the same models in PyTorch, as its peers count them
    [
        ("small", 7_585_600),
        ("base", 52_346_496),
        ("xl_small", 5_191_936),
        # PyTorch's three GRUs have a second bias of two of their gates.
        ("rnn_small", 8_254_528 - 3 * 2 * 256),
    ],
)
def test_ours_has_as_many_parameters_as_its_peers(name, parameters):
    work = WORKS[name]
    found = experiment(work)
    kind = Sentences if work.is_translation else Text
    batch = kind(2, 3, work.vocabulary).train_batches()[0]

    def init(batch):
        return nn.meta.unbox(found.task.init(found.model, jax.random.key(0), batch))

    assert num_parameters(jax.eval_shape(init, batch)) == parameters


def test_ours_trains_as_its_peers_do():
    for work in WORKS.values():
        cfg = config(work)
        assert (cfg.optim.name, cfg.optim.lr, cfg.optim.b2) == ("adam", 1e-4, 0.98)
        assert cfg.model.dropout == 0.1
        assert cfg.label_smoothing == (0.1 if work.is_translation else 0.0)
        if work.model == "rnn":
            assert not cfg.model.tie_embeddings
        else:
            assert cfg.model.norm == "post"
            assert cfg.model.attention_dropout == (0.1 if work.is_translation else 0)
    assert config(WORKS["xl_small"]).optim.clip == 0.25


def test_batches_are_full():
    sentences = Sentences(rows=4, length=6, vocabulary=40).train_batches()
    assert sentences.shapes == [(4, 6, 6)]
    assert sentences.epoch_length > 1
    assert all(sentences[k]["weights"].all() for k in range(4))
    assert sentences[0]["source"].max() < 40
    assert Text(rows=3, length=5, vocabulary=40).train_batches()[1]["weights"].all()


def test_sentences_of_all_lengths_leave_room_in_a_full_batch():
    varied = VariedSentences(rows=200, length=32, vocabulary=40)
    lengths = varied.evaluation_batches(256)
    sources = sum(int(lengths[k]["source_mask"].sum()) for k in range(len(lengths)))
    assert sources == varied.lengths.sum() < varied.rows * varied.length
    assert varied.limits.max() <= 32
    assert varied.limits.min() >= 10


@functools.cache
def tiny_step():
    return TrainStep(WORKS["rnn_small"].shrunk())


def test_a_step_of_ours_learns_and_is_compiled_once():
    subject = tiny_step()
    before = np.asarray(jax.tree.leaves(subject.state.params)[0])
    for _ in range(3):
        subject.step()
    assert int(subject.state.step) == 3
    assert np.abs(np.asarray(jax.tree.leaves(subject.state.params)[0]) - before).max()
    facts = subject.facts()
    assert facts["compilations"] == 1
    assert facts["parameters"] == num_parameters(subject.state.params)
    assert facts["versions"]["jax"] == jax.__version__


def test_the_ceiling_is_timed_for_each_product():
    subject = tiny_step()
    few, many = (
        product_seconds(subject, Product(2, 32, 64, 64, count)) for count in (10, 1000)
    )
    assert 0 < few < many


# Processes.


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


def test_a_process_that_dies_is_named_by_its_last_words(started):
    process = started(dies_at=3)
    process.ask("warm", 2)
    with pytest.raises(Missing, match="no memory left"):
        process.ask("go", 1)


# Turns and disturbances.


class Recorded:
    """A process that writes down when it is asked."""

    pid = os.getpid()

    def __init__(self, name, log, times=()):
        self.name, self.log, self.times = name, log, iter(times)

    def ask(self, command, count):
        self.log.append(f"{command} {self.name}")
        return [next(self.times, 1.0)] * count


def test_subjects_take_turns_there_and_back(monkeypatch):
    monkeypatch.setattr(rounds, "share_of_others", lambda *_: 0.0)
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
    monkeypatch.setattr(rounds, "share_of_others", lambda *_: next(told))
    log = []
    process = Recorded("A", log, times=shares)
    seconds, others = chunk(process, Plan(steps=1, tries=3, threshold=0.06))
    assert (seconds, others) == ([kept], kept)
    assert len(log) == times


def test_own_work_is_not_that_of_others():
    before, own = rounds.busy_seconds(), rounds.own_seconds(os.getpid())
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    worked = rounds.own_seconds(os.getpid()) - own
    assert worked == pytest.approx(0.3, abs=0.1)
    after = rounds.busy_seconds()
    assert after[0] - before[0] >= worked - 0.05
    with_others = rounds.share_of_others(before, 0.0)
    assert rounds.share_of_others(before, worked) < with_others
    assert rounds.share_of_others(before, 1e9) == 0.0


# Comparisons.


def options(*more):
    flags = ["--rounds=2", "--steps=2", "--warm=1", "--tries=1", "--threads=1", *more]
    return data.parse(flags)


GOALS = (("fastest", 2.0), ("original", 1.5))


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


def test_the_share_of_the_ceiling_is_that_of_the_products(capsys):
    products = [Product(1, 10, 10, 10), Product(2, 10, 10, 10, count=3)]
    compare({}, {OURS: fake(seconds=0.07)}, products, 1, (), options())
    line, _ = lines_of(capsys)
    assert line["flops"] == 2 * 1000 * (1 + 2 * 3)
    # Products sleep for 7 ms in all, a step for ten times as long.
    assert line["share_of_ceiling"] == pytest.approx(0.1, rel=0.3)


def test_a_ratio_has_the_range_of_both_quartiles():
    own = {"low": 1.0, "median": 2.0, "high": 4.0}
    other = {"low": 4.0, "median": 6.0, "high": 8.0}
    assert ratio(own, other) == {"ratio": 3.0, "low": 1.0, "high": 8.0}


# Scripts.


@pytest.fixture
def quick(monkeypatch):
    """A script, run in small."""

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", ["x", "--tiny", *flags])
        assert script.main() == 0

    return run


def test_a_tiny_training_step_is_timed_and_peers_are_named(quick, capsys):
    quick(train_step, "--work=rnn_small", "--peers=/nowhere/python")
    ours, peer, summary = lines_of(capsys)
    assert ours["subject"] == OURS
    assert ours["compilations"] == 1
    assert 0 < ours["seconds"]["low"] <= ours["seconds"]["high"] < ours["first_seconds"]
    assert ours["peak_megabytes"] > 100
    assert ours["share_of_ceiling"] > 0
    assert "/nowhere/python" in peer["missing"]
    assert summary["missing"] == ["torch_gru"]


def test_a_tiny_search_has_exactly_as_many_tokens_as_asked(quick, capsys):
    quick(decode, "--beams=1", "--peers=")
    ours, _, varied, _, saved = lines_of(capsys)
    assert ours["new_tokens"] == [WORKS["small"].shrunk().length]
    assert varied["lengths"] == "varied"
    assert 0 < saved["avoidable"] < 1
    assert saved["avoided"] < 1


def test_tiny_batches_are_counted(quick, capsys):
    quick(data, "--peers=")
    lines = [line for line in lines_of(capsys) if line.get("subject")]
    assert [line["kind"] for line in lines] == ["sentences", "text"]
    assert all(line["tokens_per_second"] > 1000 for line in lines)


@pytest.mark.slow
def test_a_tiny_start_is_faster_with_compiled_programs(quick, capsys):
    quick(startup, "--work=rnn_small", "--peers=")
    cold, cached = lines_of(capsys)
    assert cold["compiled_programs"] == "cold"
    assert cached["seconds"]["median"] < cold["seconds"]["median"]


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        (train_step, "--work=large"),
        (train_step, "--rounds=0"),
        (decode, "--beams=four"),
        (data, "--kinds=images"),
        (startup, "--work=none"),
    ],
)
def test_a_wrong_flag_is_refused(script, flag, capsys):
    with pytest.raises(SystemExit) as refused:
        script.parse([flag])
    assert refused.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_only_those_asked_for_are_started():
    found = train_step.parse(["--only=ours,marian", "--peers=python"])
    assert list(train_step.commands(WORKS["small"], found)) == [OURS, "marian"]
    alone = train_step.parse(["--peers="])
    assert list(train_step.commands(WORKS["base"], alone)) == [OURS]


# Peers.


def test_every_peer_is_a_file_that_needs_nothing_of_jax():
    named = {
        module for peers in train_step.PEERS.values() for module, *_ in peers.values()
    }
    assert named <= {path.stem for path in PEERS.glob("*.py")}
    allowed = {"benchmarks.protocol", "benchmarks.works", "benchmarks.peers"}
    shared = [ROOT / "benchmarks" / f"{name}.py" for name in ("protocol", "works")]
    for path in [*PEERS.glob("*.py"), *shared]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(
                "benchmarks"
            ):
                assert ".".join(node.module.split(".")[:2]) in allowed, path
            names = [a.name for a in getattr(node, "names", ()) if hasattr(a, "name")]
            assert not {"jax", "flax"} & {*names, getattr(node, "module", "")}, path


def test_goals_are_of_peers_there_are():
    for work in WORKS.values():
        for name, goal in work.goals:
            assert goal > 1
            assert name in {comparison.FASTEST, *train_step.PEERS[work.model]}
