"""Several processes that are one run, on loopback: the same losses, and one end."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers.entry_points import ROOT, assert_refused, command, forked_python, run
from tests.benchmarks.test_fault_injection import CONFIG
from training.parallel.distributed import DistributedConfig, initialize
from utils.errors import UserError

STEPS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "valid", "test"):
        text = " ".join(random.Random(split).choices("abcdefgh", k=3000))
        (folder / f"{split}.txt").write_text(f"{text}\n")
    return folder


def flags_of(data, workdir, steps):
    return (
        *CONFIG,
        f"--config.data.source_dir={data}",
        f"--config.data.dir={data / 'prepared'}",
        "--config.data.batch_size=3",  # which two processes do not divide
        "--config.model.dropout=0.0",
        "--config.every.log=1",
        f"--config.every.eval={STEPS}",
        "--config.every.checkpoint=4",
        f"--config.steps={steps}",
        f"--workdir={workdir}",
    )


def begin(*flags, python=(sys.executable,)):
    """Two processes that are one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meet = f"--coordinator=127.0.0.1:{probe.getsockname()[1]}"
    script = command("train.py", *flags)[1:]
    return [
        subprocess.Popen(
            [*python, *script, meet, "--num_processes=2", f"--process_id={i}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for i in range(2)
    ]


def end(process):
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


def losses(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert len({(row["step"], row["split"]) for row in rows}) == len(rows)
    return {(row["step"], row["split"]): row["loss"] for row in rows}


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    done = run("train.py", *flags_of(data, workdir, STEPS))
    assert done.returncode == 0, done.stderr
    return losses(workdir)


def assert_same(workdir, alone):
    found = losses(workdir)
    assert found.keys() == alone.keys()
    for key, loss in alone.items():
        np.testing.assert_allclose(found[key], loss, rtol=1e-5, err_msg=str(key))


def test_two_processes_are_one_run_that_the_first_tells_of(data, tmp_path, alone):
    flags = flags_of(data, tmp_path / "run", STEPS)
    forked = forked_python().split()
    first, second = [end(process) for process in begin(*flags, python=forked)]
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "step 8/8" in first[1]
    assert "step" not in second[1]
    assert_same(tmp_path / "run", alone)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_ends_and_both_go_on(
    data, tmp_path, alone, killed
):
    workdir = tmp_path / "run"
    processes = begin(*flags_of(data, workdir, STEPS))
    while not (workdir / "checkpoints" / "4").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[killed].kill()
    begun = time.monotonic()
    code, _, told = end(processes[1 - killed])
    assert time.monotonic() - begun < 30
    assert code not in (0, 75)
    assert "lost another" in told or "another task died" in told, told
    end(processes[killed])
    # The same command, in one process now.
    done = run("train.py", *flags_of(data, workdir, STEPS))
    assert done.returncode == 0, done.stderr
    assert b"resuming at step" in done.stdout
    assert_same(workdir, alone)


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_both_go_on(data, tmp_path, alone):
    workdir = tmp_path / "run"
    flags = flags_of(data, workdir, 100_000)
    processes = begin(*flags)
    while not (workdir / "checkpoints" / "4").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    os.kill(processes[1].pid, signal.SIGTERM)
    ends = [end(process) for process in processes]
    assert [code for code, _, _ in ends] == [75, 75], ends
    stopped = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert stopped in {step for step, _ in losses(workdir)}


@pytest.mark.slow
def test_two_processes_leave_the_same_batch_out_as_one(data, tmp_path):
    folder = tmp_path / "text"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("prepared"))
    text = bytearray((folder / "train.txt").read_bytes())
    for stream in range(3):  # all rows of one batch
        start = stream * len(text) // 3 + 70 * 8 + 1
        text[start : start + 8] = b"ZZZZZZZZ"
    (folder / "train.txt").write_bytes(text)
    found = []
    for name in ("two", "one"):
        changes = ("on_spike=skip", "optim.lr=0.01", "optim.warmup=0", "every.eval=80")
        flags = (
            *flags_of(folder, tmp_path / name, 80),
            *(f"--config.{change}" for change in changes),
        )
        if name == "two":
            ends = [end(process) for process in begin(*flags)]
            assert [code for code, _, _ in ends] == [0, 0], ends
            assert "is a spike" in ends[0][2]
            assert "is a spike" not in ends[1][2]
        else:
            assert run("train.py", *flags).returncode == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        (spike,) = [row for row in rows if row["split"] == "spike"]
        assert (spike["step"], spike["batch"], spike["skips"]) == (71, 70, 1)
        found.append([row["loss"] for row in rows])
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_half_an_address_is_refused(data, tmp_path):
    flags = flags_of(data, tmp_path / "run", STEPS)
    done = run("train.py", *flags, "--num_processes=2")
    assert_refused(done, "--coordinator=HOST:PORT", "--process_id")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("host", 2, 0), "--coordinator=host must be HOST:PORT"),
        (("host:²", 2, 0), "--coordinator=host:² must be HOST:PORT"),
        (("host:1", 0, 0), "--num_processes=0 must be 1 or more"),
        (("host:1", 2, 2), "--process_id=2 must be in 0 to 1"),
        (("host:1", 2, -1), "--process_id=-1 must be in 0 to 1"),
    ],
)
def test_an_impossible_address_is_refused(address, message):
    with pytest.raises(UserError, match=message):
        initialize(DistributedConfig(*address))
