"""A dead worker is known by its lease, and its trial is open again."""

import dataclasses
import os
import subprocess
import sys

from sweeps import ledger
from sweeps.leases import EXPIRY, Lease, Watch, place, start_time
from sweeps.ledger import Attempt, slots


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lease(place="there", process=7, start_time=1.0, heartbeat=0.0):
    return Lease(place, process, start_time, heartbeat)


def test_a_process_knows_itself_alive():
    mine = Lease.mine()
    assert Watch().is_alive("trial", mine)
    assert Lease.of_json(mine.to_json()) == mine


def test_a_process_that_ended_is_dead_at_once_even_before_it_is_waited_for():
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1)
    held = lease(place(), process.pid, start_time(process.pid))
    assert Watch().is_alive("trial", held)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not Watch().is_alive("trial", held)
    process.wait()
    assert not Watch().is_alive("trial", held)


def test_another_process_with_the_same_id_is_not_the_holder():
    watch = Watch("here", start_time=lambda process: 2.0)
    assert not watch.is_alive("trial", lease("here", start_time=1.0))
    assert watch.is_alive("trial", lease("here", start_time=2.0))


def test_elsewhere_a_lease_lives_as_long_as_its_heart_beats():
    clock = Clock()
    watch = Watch("here", clock)
    for beat in range(5):  # clocks of machines need not agree
        held = lease(heartbeat=1e9 - beat)
        assert watch.is_alive("trial", held)
        clock.now += EXPIRY - 1
        assert watch.is_alive("trial", held)
        clock.now += 0.5
    clock.now += 0.6
    assert not watch.is_alive("trial", held)
    assert watch.is_alive("another trial", held)  # seen for the first time


def test_a_trial_without_a_lease_is_given_time():
    clock = Clock()
    watch = Watch("here", clock)
    assert watch.is_alive("trial", None)
    clock.now += EXPIRY + 1
    assert not watch.is_alive("trial", None)


def attempts(*outcomes, slot=0, first=0):
    return [Attempt(first + n, slot, n, outcome) for n, outcome in enumerate(outcomes)]


def state(*outcomes, retries=1, alive=True):
    return slots(attempts(*outcomes), 1, retries, lambda _: alive)[0].state


def test_the_state_of_a_slot_follows_from_its_attempts():
    assert state() == ledger.OPEN
    assert state(None) == ledger.RUNNING
    assert state(None, alive=False) == ledger.OPEN
    assert state(ledger.INTERRUPTED) == ledger.OPEN
    assert state(ledger.INTERRUPTED, None) == ledger.RUNNING
    for ended in (ledger.DONE, ledger.PRUNED, ledger.DIVERGED):
        assert state(ledger.INTERRUPTED, ended) == ended


def test_only_failures_count_as_failures():
    assert state(ledger.FAILED) == ledger.OPEN
    assert state(ledger.FAILED, ledger.INTERRUPTED, ledger.INTERRUPTED) == ledger.OPEN
    assert state(ledger.FAILED, ledger.INTERRUPTED, ledger.FAILED) == ledger.FAILED
    assert state(ledger.FAILED, retries=0) == ledger.FAILED
    assert state(ledger.FAILED, ledger.DONE) == ledger.DONE


def test_of_two_attempts_at_one_place_the_first_is_valid():
    first = Attempt(3, 0, 0, ledger.DONE)
    late = Attempt(4, 0, 0, None)
    for row in ([first, late], [late, first]):
        (found,) = slots(row, 1, 1, lambda _: True)
        assert found.attempts == (first,)
    lost = dataclasses.replace(first, outcome=ledger.LOST)
    (found,) = slots([lost, late], 1, 1, lambda _: True)
    assert found.attempts == (late,)


def test_slots_of_a_larger_sweep_are_left_alone():
    found = slots(attempts(ledger.DONE, slot=5), 3, 1, lambda _: True)
    assert [slot.state for slot in found] == [ledger.OPEN] * 3
