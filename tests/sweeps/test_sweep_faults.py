"""Real trainings of a killed sweep end as those of an uninterrupted one."""

import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from analysis.diverge.records import differences
from helpers import fake_bucket
from helpers.entry_points import ROOT, command
from utils.paths import resolve_path

STEPS, TRIALS = 30, 12
TINY = {
    "steps": STEPS,
    "keep.metric": "loss",
    "every.log": 1,
    "every.eval": 0,  # at the end alone: scoring is most of a trial
    "every.checkpoint": 5,
    "model.width": 16,
    "model.embedding_width": 16,
    "model.attention_width": 16,
    "data.buckets": 1,
    "data.max_length": 16,
    "data.tokens_per_batch": 128,
    "data.vocab_size": 300,
    "decode.max_length": 4,
}
SPACE = """
from sweeps.search_space import Space, grid, product, seeds

def get_space():
    return Space(product(grid({"optim.lr": [1e-3, 3e-3, 1e-2]}), seeds(4)))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Returns a function that starts a sweep as leader of a process group."""
    shared = tmp_path_factory.mktemp("shared")
    (shared / "space.py").write_text(SPACE)
    flags = [f"--config.{key}={value}" for key, value in TINY.items()]

    def starting(folder, *options, machine=None):
        order = command(
            "sweep.py",
            "--config=configs/cldr.py:rnn",
            f"--config.data.dir={shared / 'data'}",
            f"--space={shared / 'space.py'}",
            f"--workdir={folder}",
            *flags,
            *options,
        )
        if machine is not None:
            program = str(ROOT / "tests" / "helpers" / "machine.py")
            order = [sys.executable, program, str(machine), *order[1:]]
        return subprocess.Popen(order, cwd=ROOT, start_new_session=True)

    return starting


def lines(path):
    """Returns the complete lines of a file of JSON objects."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def training_steps(run):
    rows = lines(run / "metrics.jsonl")
    return [row["step"] for row in rows if row["split"] == "train"]


def in_the_middle(folder):
    """Returns the trials that have saved a checkpoint and gone on from there."""
    return [
        number
        for number in range(TRIALS)
        for run in [folder / "trials" / f"{number:04}"]
        if list(run.glob("checkpoints/*[0-9]/checksums.json"))
        and 7 <= len(training_steps(run)) < STEPS - 3
    ]


def kill_in_the_middle(process, folder, first):
    """Kills the group once a trial of number `first` or above is in its middle."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None
        if any(number >= first for number in in_the_middle(folder)):
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return [number for number in in_the_middle(folder) if number >= first]


def results(folder):
    kept = ("trial", "state", "point", "value", "step", "error")
    return [{key: row[key] for key in kept} for row in lines(folder / "trials.jsonl")]


def ends(folder, number):
    """Returns how often a trial came to its last validation."""
    log = (folder / "logs" / f"{number:04}.log").read_text()
    return log.count(f"step {STEPS}/{STEPS}  validation")


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, "--workers=2").wait() == 0
    assert [row["state"] for row in results(folder)] == ["done"] * TRIALS
    return folder


@pytest.mark.slow
def test_a_sweep_killed_twice_has_the_results_of_an_uninterrupted_one(
    start, whole, tmp_path
):
    killed = []
    for first in (1, 6):
        process = start(tmp_path, "--workers=2")
        found = kill_in_the_middle(process, tmp_path, first)
        assert found, "no trial was in its middle"
        killed += found
    assert start(tmp_path, "--workers=2").wait() == 0
    assert results(tmp_path) == results(whole)
    for number in range(TRIALS):
        run, same = (f / "trials" / f"{number:04}" for f in (tmp_path, whole))
        assert training_steps(run) == list(range(1, STEPS + 1))
        assert differences(run, same) == []
        assert ends(tmp_path, number) == 1
    for number in killed:
        assert (
            "resuming at step" in (tmp_path / "logs" / f"{number:04}.log").read_text()
        )


@pytest.mark.slow
def test_two_commands_share_a_sweep(start, tmp_path):
    both = [start(tmp_path, "--workers=1", "--trials=4") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [row["state"] for row in results(tmp_path)] == ["done"] * 4
    assert [ends(tmp_path, number) for number in range(4)] == [1] * 4


@pytest.mark.slow
def test_after_a_signal_the_command_resumes_the_saved_trials(start, tmp_path):
    process = start(tmp_path, "--workers=2", "--trials=2")
    while not in_the_middle(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert "running" not in {row["state"] for row in results(tmp_path)}
    assert start(tmp_path, "--workers=2", "--trials=2").wait() == 0

    assert [ends(tmp_path, number) for number in range(2)] == [1, 1]
    assert [row["state"] for row in results(tmp_path)] == ["done"] * 2


@pytest.mark.slow
def test_a_population_in_a_bucket_is_that_on_a_disk(start, tmp_path, monkeypatch):
    flags = ["--population=2", "--trials=2"]
    assert start(tmp_path, *flags).wait() == 0
    with fake_bucket.serve() as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        folder = "gs://bucket/population"
        assert start(folder, *flags).wait() == 0
        assert results(resolve_path(folder)) == results(tmp_path)
        for number in range(2):
            name = f"trials/{number:04}"
            assert differences(resolve_path(folder) / name, tmp_path / name) == []


@pytest.mark.slow
def test_two_processes_train_each_trial_together(start, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator=localhost:{free.getsockname()[1]}"
    flags = ["--placement=slice", address, "--num_processes=2", "--trials=2"]
    both = [start(tmp_path, *flags, f"--process_id={k}") for k in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [row["state"] for row in results(tmp_path)] == ["done"] * 2
    for number in range(2):
        run = tmp_path / "trials" / f"{number:04}"
        assert training_steps(run) == list(range(1, STEPS + 1))
        assert len(json.loads((run / "about.json").read_text())["devices"]) >= 1
        assert (tmp_path / "logs" / f"{number:04}-process-1.log").exists()


NUM_KILLS, MACHINES = 20, 3
FAULTS = ("lost", 429, 503, "slow")


@pytest.mark.slow
def test_machines_that_are_killed_complete_a_sweep_in_a_bucket(start, whole, capsys):
    """Three machines share only a bucket; requests for the study fail now and then."""
    draw, counts = random.Random(0), collections.Counter()
    folder = "gs://bucket/sweep"
    with (
        fake_bucket.serve() as (bucket, environment),
        pytest.MonkeyPatch.context() as m,
    ):
        for name, value in environment.items():
            m.setenv(name, value)

        def draw_fault(url):
            fault = None
            if "study" in url and draw.random() < 0.02:
                fault = draw.choice(FAULTS)
                counts[f"requests answered with {fault}"] += 1
            return fault

        def is_complete():
            rows = bucket.objects.get(("bucket", "sweep/trials.jsonl"), (b"", 0))[0]
            return rows.count(b'"state": "done"') == TRIALS

        def wait_for_checkpoint():
            seen, deadline = set(bucket.names()), time.monotonic() + 120
            while time.monotonic() < deadline and not any(
                name.endswith("checksums.json") for name in {*bucket.names()} - seen
            ):
                time.sleep(0.1)

        bucket.draw_fault, bucket.staleness = draw_fault, 5
        machines = {k: start(folder, machine=k) for k in range(MACHINES)}
        while counts["machines killed"] < NUM_KILLS and not is_complete():
            if draw.random() < 0.5:  # while trials start
                time.sleep(draw.uniform(1, 6))
            else:  # between two checkpoints
                wait_for_checkpoint()
                time.sleep(draw.uniform(0, 1))
            victim = draw.choice([*machines])
            os.killpg(machines[victim].pid, signal.SIGKILL)
            machines[victim].wait()
            counts["machines killed"] += 1
            machines[victim] = start(folder, machine=f"{victim}{counts.total()}")
        assert [process.wait() for process in machines.values()] == [0] * MACHINES
        bucket.draw_fault = lambda url: None

        run_all = resolve_path(folder)
        assert results(run_all) == results(whole)
        for number in range(TRIALS):
            run, same = (f / "trials" / f"{number:04}" for f in (run_all, whole))
            assert training_steps(run) == list(range(1, STEPS + 1))
            assert differences(run, same) == []
            outcomes = [
                json.loads(path.read_text())["outcome"]
                for path in (run_all / "study" / f"{number:04}").glob("*.end.json")
            ]
            assert outcomes.count("done") == 1
            assert set(outcomes) <= {"done", "interrupted"}
            counts["attempts interrupted"] += outcomes.count("interrupted")
            log = (run_all / "logs" / f"{number:04}.log").read_text()
            counts["resumed from a checkpoint"] += log.count("resuming at step")
    assert counts["machines killed"] == NUM_KILLS
    with capsys.disabled():
        print("\n", dict(counts))
