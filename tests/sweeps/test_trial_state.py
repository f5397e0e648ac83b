"""States of trials: liveness of processes, and outcomes of attempts."""

import dataclasses
import os
import subprocess
import sys

from sweeps.trial_state import (
    DIVERGED,
    DONE,
    EXPIRY_SECONDS,
    FAILED,
    INTERRUPTED,
    LOST,
    OPEN,
    PRUNED,
    RUNNING,
    Heartbeat,
    LivenessMonitor,
    TrialAttempt,
    group_by_trial,
    machine_id,
    process_start_time,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def heartbeat(machine="other", pid=7, start_time=1.0, time=0.0):
    return Heartbeat(machine, pid, start_time, time)


def test_a_process_knows_that_it_is_alive():
    own = Heartbeat.current()
    assert LivenessMonitor().is_alive("attempt", own)
    assert Heartbeat(**dataclasses.asdict(own)) == own


def test_a_process_that_ended_is_dead_at_once_even_as_a_zombie():
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1)
    held = heartbeat(machine_id(), process.pid, process_start_time(process.pid))
    assert LivenessMonitor().is_alive("attempt", held)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not LivenessMonitor().is_alive("attempt", held)
    process.wait()
    assert not LivenessMonitor().is_alive("attempt", held)


def test_a_process_that_reuses_an_id_is_another_process():
    monitor = LivenessMonitor("here", start_time=lambda pid: 2.0)
    assert not monitor.is_alive("attempt", heartbeat("here", start_time=1.0))
    assert monitor.is_alive("attempt", heartbeat("here", start_time=2.0))


def test_a_process_of_another_machine_is_alive_while_its_heartbeat_changes():
    clock = Clock()
    monitor = LivenessMonitor("here", clock)
    for beat in range(5):  # clocks of machines need not agree
        held = heartbeat(time=1e9 - beat)
        assert monitor.is_alive("attempt", held)
        clock.now += EXPIRY_SECONDS - 1
        assert monitor.is_alive("attempt", held)
        clock.now += 0.5
    clock.now += 0.6
    assert not monitor.is_alive("attempt", held)
    assert monitor.is_alive("another attempt", held)  # seen for the first time


def test_an_attempt_without_a_heartbeat_is_given_time():
    clock = Clock()
    monitor = LivenessMonitor("here", clock)
    assert monitor.is_alive("attempt", None)
    clock.now += EXPIRY_SECONDS + 1
    assert not monitor.is_alive("attempt", None)


def attempts(*outcomes, trial=0):
    return [TrialAttempt(n, trial, n, outcome) for n, outcome in enumerate(outcomes)]


def state(*outcomes, retries=1, alive=True):
    (trial,) = group_by_trial(attempts(*outcomes), 1, retries, lambda _: alive)
    return trial.state


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


def test_of_two_attempts_with_one_index_the_first_is_valid():
    first = TrialAttempt(3, 0, 0, DONE)
    late = TrialAttempt(4, 0, 0, None)
    for row in ([first, late], [late, first]):
        (trial,) = group_by_trial(row, 1, 1, lambda _: True)
        assert trial.attempts == (first,)
    lost = dataclasses.replace(first, outcome=LOST)
    (trial,) = group_by_trial([lost, late], 1, 1, lambda _: True)
    assert trial.attempts == (late,)


def test_trials_of_a_larger_sweep_are_left_alone():
    trials = group_by_trial(attempts(DONE, trial=5), 3, 1, lambda _: True)
    assert [trial.state for trial in trials] == [OPEN] * 3
