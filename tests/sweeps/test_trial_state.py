"""States of trials: liveness of processes, and outcomes of attempts."""

import os
import subprocess
import sys

from sweeps.trial_state import (
    DIVERGED,
    DONE,
    EXPIRY_SECONDS,
    FAILED,
    INTERRUPTED,
    LEASE_SECONDS,
    OPEN,
    PRUNED,
    RENEWAL_SECONDS,
    RUNNING,
    Attempt,
    LivenessMonitor,
    machine_id,
    make_trial,
    process_start_time,
    this_process,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def attempt(machine="other", pid=7, start_time=1.0, live=None, index=0):
    process = {"machine": machine, "pid": pid, "start_time": start_time}
    return Attempt(0, index, {"point": {}, **process}, live)


def test_a_process_knows_that_it_is_alive():
    own = this_process()
    assert LivenessMonitor().is_alive(Attempt(0, 0, own))


def test_a_process_that_ended_is_dead_at_once_even_as_a_zombie():
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1)
    held = attempt(machine_id(), process.pid, process_start_time(process.pid))
    assert LivenessMonitor().is_alive(held)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not LivenessMonitor().is_alive(held)
    process.wait()
    assert not LivenessMonitor().is_alive(held)


def test_a_process_that_reuses_an_id_is_another_process():
    monitor = LivenessMonitor("here", start_time=lambda pid: 2.0)
    assert not monitor.is_alive(attempt("here", start_time=1.0))
    assert monitor.is_alive(attempt("here", start_time=2.0))


def test_a_process_of_another_machine_is_alive_while_it_renews_its_lease():
    clock = Clock()
    monitor = LivenessMonitor("here", clock)
    for renewal in range(5):  # clocks of machines may differ by minutes
        held = attempt(live={"renewal": renewal, "time": 1e9 - 600 * renewal})
        assert monitor.is_alive(held)
        clock.now += EXPIRY_SECONDS - 1
        assert monitor.is_alive(held)
        clock.now += 0.5
    clock.now += 0.6
    assert not monitor.is_alive(held)
    assert monitor.is_alive(attempt(index=1))  # seen for the first time


def test_an_attempt_that_was_never_renewed_is_given_time():
    clock = Clock()
    monitor = LivenessMonitor("here", clock)
    assert monitor.is_alive(attempt())
    clock.now += EXPIRY_SECONDS + 1
    assert not monitor.is_alive(attempt())


def test_a_lease_ends_well_before_others_take_the_trial_over():
    assert 3 * RENEWAL_SECONDS < LEASE_SECONDS < EXPIRY_SECONDS - 20


def attempts(*outcomes):
    return tuple(
        Attempt(0, n, {"point": {}}, None, outcome and {"outcome": outcome})
        for n, outcome in enumerate(outcomes)
    )


def state(*outcomes, retries=1, alive=True):
    return make_trial(0, attempts(*outcomes), retries, lambda _: alive).state


def test_the_state_of_a_trial_follows_from_its_attempts():
    assert state() == OPEN
    assert state(None) == RUNNING
    assert state(None, alive=False) == OPEN
    assert state(INTERRUPTED) == OPEN
    assert state(INTERRUPTED, None) == RUNNING
    for ended in (DONE, PRUNED, DIVERGED):
        assert state(INTERRUPTED, ended) == ended


def test_only_failures_count_as_failures():
    assert state(FAILED) == OPEN
    assert state(FAILED, INTERRUPTED, INTERRUPTED) == OPEN
    assert state(FAILED, INTERRUPTED, FAILED) == FAILED
    assert state(FAILED, retries=0) == FAILED
    assert state(FAILED, DONE) == DONE
