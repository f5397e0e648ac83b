"""Sweeps in a bucket on loopback: killed machines, faulty servers."""

import json
import os
import random
import signal
import time

import pytest

from helpers import fake_bucket
from helpers.toy_sweep import begin, results, toy_sweep
from helpers.toy_trial import STEPS, WAITS_LATER
from sweeps.search_space import Space, asha, grid, listed, seeds
from sweeps.storage import Storage

FAULTS = ("lost", 429, 503, "slow")


@pytest.fixture(scope="module")
def server():
    with fake_bucket.serve() as (fake, environment), pytest.MonkeyPatch.context() as m:
        for name, value in environment.items():
            m.setenv(name, value)
        yield fake


@pytest.fixture
def bucket(server):
    yield server
    server.draw_fault, server.staleness = lambda url: None, 0


def text(bucket, name):
    return bucket.objects.get(("bucket", name), (b"", 0))[0].decode()


def assert_complete(bucket, sweep, count=12):
    """All trials are done, each step is logged once and no trial ended twice."""
    rows = results(f"gs://bucket/{sweep}")
    assert [row["state"] for row in rows] == ["done"] * count
    assert [row["value"] for row in rows] == [100 + n + 0.1 for n in range(count)]
    for n in range(count):
        log = text(bucket, f"{sweep}/trials/{n:04}/metrics.jsonl").splitlines()
        assert [json.loads(line)["step"] for line in log] == [*range(1, STEPS + 1)]
        assert text(bucket, f"{sweep}/trials/{n:04}/ends") == "end\n"
        names = [n for n in bucket.names() if n.startswith(f"{sweep}/study/{n:04}/")]
        ends = [
            json.loads(text(bucket, name))["outcome"]
            for name in names
            if name.endswith(".end.json")
        ]
        assert ends.count("done") <= 1
        assert set(ends) <= {"done", "interrupted"}


def open_storage(name):
    return Storage(f"gs://bucket/{name}", timeout=30)


def test_a_sweep_in_a_bucket_is_one_on_a_disk(bucket, tmp_path):
    points = [{"optim.lr": 0.1}, {"optim.lr": 0.9, "seed": WAITS_LATER}]
    space = Space(listed(points), pruning=asha(factor=2))
    storage = open_storage("same")
    assert toy_sweep(storage.path, space, workers=1, storage=storage).run() == 0
    assert toy_sweep(tmp_path, space, workers=1).run() == 0
    for found in (results(storage.path), results(tmp_path)):  # when it is pruned varies
        assert [row["state"] for row in found] == ["done", "pruned"]
    assert results(storage.path)[0] == results(tmp_path)[0]
    assert text(bucket, "same/logs/0000.log") == "starts after 0\n"
    assert storage.list("study") == Storage(tmp_path).list("study")


def test_a_population_trains_in_a_bucket(bucket):
    storage = open_storage("population")
    space = Space(grid({"seed": [0, 1, 2]}))
    options = {"population": 3, "workers": 1, "program": "toy_population"}
    assert toy_sweep(storage.path, space, storage=storage, **options).run() == 0
    assert_complete(bucket, "population", 3)
    assert "see logs/0000.log" in text(bucket, "population/logs/0001.log")


def test_faults_of_the_server_do_not_change_a_sweep(bucket):
    draw = random.Random(0)
    storage = open_storage("faults")
    sweep = toy_sweep(storage.path, Space(seeds(4)), storage=storage)
    bucket.staleness = 5
    bucket.draw_fault = lambda url: (
        draw.choice(FAULTS) if draw.random() < 0.05 else None
    )
    assert sweep.run() == 0
    bucket.draw_fault = lambda url: None
    assert_complete(bucket, "faults", 4)


@pytest.mark.slow
def test_three_machines_that_are_killed_complete_a_sweep(bucket):
    """Their clocks differ by minutes, and listings are stale."""
    draw, bucket.staleness = random.Random(1), 3

    def start(machine):
        environment = {"TOY_LEASE_SECONDS": "3", "TOY_PAUSE": "0.1"}
        return begin("gs://bucket/killed", str(machine), **environment)

    machines = {machine: start(machine) for machine in range(3)}
    for number in range(4):
        seen = len(bucket.names())
        deadline = time.monotonic() + 30
        while len(bucket.names()) < seen + 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.random())
        victim = draw.choice(list(machines))
        if machines[victim].poll() is None:
            os.killpg(machines[victim].pid, signal.SIGKILL)
            machines[victim].wait()
        machines[victim] = start(f"{victim}{number + 1}")
    assert [process.wait(120) for process in machines.values()] == [0, 0, 0]
    assert_complete(bucket, "killed")
