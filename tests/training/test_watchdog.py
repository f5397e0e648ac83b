"""A wait that is far longer than any before is reported, and ends a run if asked to."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training.watchdog import FACTOR, FIRST_FACTOR, STALLED, Watchdog, format_stacks

ROOT = Path(__file__).parents[2]
MINUTES = 0.05 / 60  # shortest stall


def watchdog(action="report", saved_step=lambda: None, minutes=MINUTES):
    return Watchdog(minutes, action, saved_step)


def wait(dog, kind, number, seconds):
    with dog.waiting(kind, number):
        time.sleep(seconds)


def test_a_wait_longer_than_any_before_is_reported_once_with_all_stacks(capsys):
    with watchdog(saved_step=lambda: 40) as dog:
        wait(dog, "step", 41, 0.01)
        wait(dog, "step", 42, 0.5)
    printed = capsys.readouterr().err
    assert printed.count("step 42 has taken") == 1
    assert "the longest before took 0.01" in printed
    assert "thread MainThread:" in printed
    assert "in wait" in printed
    assert "steps after 40, the newest checkpoint, would be lost" in printed
    assert "step 42 ended after 0.5" in printed


def test_waits_as_long_as_those_before_are_not_reported(capsys):
    with watchdog(minutes=0.3 / 60) as dog:
        for k in range(2):
            wait(dog, "save", k, 0.5)
            wait(dog, "step", k, 0.0)
        assert dog.limit("save") >= FACTOR * 0.5
    assert not capsys.readouterr().err


def test_the_first_wait_of_a_kind_may_compile(capsys):
    with watchdog() as dog:
        assert dog.limit("step") == pytest.approx(FIRST_FACTOR * 0.05)
        wait(dog, "batch", 1, 0.6)
    printed = capsys.readouterr().err
    assert "batch 1 has taken" in printed
    assert "none has ended in this process yet" in printed
    assert "no checkpoint is saved: all steps would be lost" in printed


def test_time_between_waits_does_not_count(capsys):
    with watchdog() as dog:
        wait(dog, "step", 1, 0.0)
        time.sleep(0.3)
        wait(dog, "step", 2, 0.0)
    assert not capsys.readouterr().err


def test_without_a_watchdog_there_is_no_thread():
    before = threading.active_count()
    with watchdog("off") as dog:
        assert threading.active_count() == before
        wait(dog, "step", 1, 0.0)


def test_stacks_begin_with_the_main_thread_and_name_the_others():
    ready, done = threading.Event(), threading.Event()

    def hang_in_a_batch():
        ready.set()
        done.wait()

    thread = threading.Thread(target=hang_in_a_batch, name="batches")
    thread.start()
    ready.wait()
    found = []
    reader = threading.Thread(target=lambda: found.append(format_stacks()))
    reader.start()
    reader.join()
    done.set()
    thread.join()
    assert found[0].startswith("thread MainThread:")
    assert "thread batches:" in found[0]
    assert "hang_in_a_batch" in found[0]


HANGING_WORKER = """
import sys, threading
sys.path.insert(0, "tests")
from helpers.toy_run import Toy
from pathlib import Path
toy = Toy(Path(sys.argv[1]), stall_minutes=0.5 / 60)
toy.go(("batch", 7), threading.Event().wait)
"""


def test_a_worker_that_hangs_in_a_batch_ends_the_run_which_resumes(tmp_path):
    """The checkpoint of step 6 is whole, and the second process goes on from it."""
    from helpers.toy_run import Toy

    command = [sys.executable, "-c", HANGING_WORKER, str(tmp_path / "run")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == STALLED, done.stderr
    assert "batch 7 has taken" in done.stderr
    assert "in making" in done.stderr  # the thread that makes batches
    assert "steps after 6, the newest checkpoint, are lost" in done.stderr
    resumed, whole = Toy(tmp_path / "run"), Toy(tmp_path / "whole")
    resumed.go()
    whole.go()
    assert resumed.left() == whole.left()
