"""Property test of the protocol: workers whose storage calls interleave at random.

Every call may be delayed for minutes, fail before or after it took effect, or be the
last one of a worker that is killed; listings are stale, and clocks differ.
"""

import collections
import functools
import random
import threading

import pytest

from helpers.toy_sweep import study
from sweeps import study as study_module
from sweeps import trial_state
from sweeps.scheduler import claim_next
from sweeps.search_space import Space, seeds
from sweeps.storage import Storage
from sweeps.study import LeaseLost
from sweeps.trial_state import LEASE_SECONDS, RENEWAL_SECONDS

TRIALS, STEPS, WORKERS, KILLS = 3, 8, 4, 6


class Killed(BaseException):
    """End of a worker at a storage call."""


class Memory:
    """Files in memory, as sweeps/storage.py uses them, with stale listings."""

    def __init__(self, draw):
        self.content, self.past = {}, collections.deque([[]], maxlen=20)
        self.draw = draw

    def create(self, name, content):
        if name in self.content:
            raise FileExistsError(name)
        self.write(name, content)

    def write(self, name, content):
        self.content[name] = content
        self.past.append(list(self.content))

    def read(self, name):
        if name not in self.content:
            raise FileNotFoundError(name)
        return self.content[name]

    def list(self, folder):
        return self.draw.choice(self.past)


class World:
    """Workers as threads, of which one at a time makes one call.

    Attributes:
      now: seconds, which pass only between calls.
      runs: for each trial, the attempt that made each of its steps.
    """

    def __init__(self, seed, folder):
        self.draw, self.folder, self.now = random.Random(seed), folder, 1000.0
        self.memory = Memory(self.draw)
        self.runs = {n: [] for n in range(TRIALS)}
        self.counts, self.errors = collections.Counter(), []
        self.lock = threading.Condition()
        self.calls = {}  # worker -> its call, that waits
        self.living, self.wake = set(), {}

    def request(self, worker, function, *arguments, can_fail=True):
        """Returns the result of a call when its turn has come."""
        call = {"function": function, "arguments": arguments, "can_fail": can_fail}
        with self.lock:
            self.calls[worker] = call
            self.lock.notify_all()
            self.lock.wait_for(lambda: "result" in call or "error" in call)
        if "error" in call:
            raise call["error"]
        return call["result"]

    def start(self):
        name = f"machine {self.counts['started']}"
        self.counts["started"] += 1
        self.living.add(name)
        threading.Thread(target=self.work, name=name, args=(name,), daemon=True).start()

    def run(self):
        """Serves the calls of all workers in a random order, until all have ended."""
        for _ in range(WORKERS):
            self.start()
        while self.living:
            with self.lock:
                assert self.lock.wait_for(lambda: self.living <= {*self.calls}, 20)
                if not self.living:
                    break
                self.now += self.draw.uniform(0, 6)
                worker = self.draw.choice(sorted(self.living))
                if self.draw.random() < 0.04:  # it is suspended
                    self.wake[worker] = self.now + self.draw.uniform(100, 400)
                if self.wake.get(worker, 0.0) <= self.now:
                    self.serve(worker, self.calls.pop(worker))
                    self.lock.notify_all()

    def serve(self, worker, call):
        fate = self.draw.random()
        is_killed = fate < 0.02 and self.counts["killed"] < KILLS
        fails = fate > 0.95 and call["can_fail"]
        if (is_killed or fails) and self.draw.random() < 0.5:
            error = Killed() if is_killed else ConnectionResetError("not sent")
        else:
            try:
                call["result"], error = call["function"](*call["arguments"]), None
            except Exception as raised:
                error = raised
            if is_killed:
                error = Killed()
            elif fails:
                error = ConnectionResetError("answer lost")
        if is_killed:
            self.counts["killed"] += 1
        elif fails:
            self.counts["failed calls"] += 1
        if error is not None:
            call["error"] = error

    def work(self, name):
        try:
            self.sweep(name)
        except Killed:
            self.start()
        except BaseException as error:
            self.errors.append(error)
        finally:
            with self.lock:
                self.living.discard(name)
                self.lock.notify_all()

    def sweep(self, name):
        files = Files(self, name)
        storage = Storage(self.folder, NoPause(), files=files, clock=lambda: 0.0)
        found = study(self.folder, Space(seeds(TRIALS)), storage=storage)
        found.monitor.clock = lambda: self.now
        while any(t.state not in trial_state.ENDED for t in found.trials()):
            if claim := claim_next(found):
                try:
                    self.train(name, found, claim)
                except LeaseLost:
                    self.counts["leases lost"] += 1

    def train(self, name, found, claim):
        """Makes the steps of a trial, as sweeps/worker.py and its process do."""
        renewal_time, offset = self.now, clock_offset(name)
        while len(self.runs[claim.trial]) < STEPS:
            step = functools.partial(self.make_step, claim, offset)
            if not self.request(name, step, can_fail=False):
                self.counts["leases expired"] += 1
                found.finish(claim, trial_state.INTERRUPTED)
                return
            if self.now - renewal_time > RENEWAL_SECONDS:
                renewal_time = self.now
                found.renew(claim)
        found.finish(claim, trial_state.DONE, value=1.0, step=STEPS)

    def make_step(self, claim, offset):
        """Makes one step, unless the process has ended with its lease."""
        if self.now + offset - claim.renewed > LEASE_SECONDS:
            return False
        self.runs[claim.trial].append(claim.index)
        return True


class NoPause(threading.Event):
    def wait(self, timeout=None):
        return False


class Files:
    """Files of one worker, whose calls the world serves."""

    def __init__(self, world, name):
        self.world, self.name = world, name

    def __getattr__(self, method):
        function = getattr(self.world.memory, method)
        return lambda *arguments: self.world.request(self.name, function, *arguments)


def clock_offset(name):
    return 300.0 * int(name.split()[1])


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Returns a function that makes a world from a seed."""
    current = []

    def name():
        return threading.current_thread().name

    monkeypatch.setattr(trial_state, "machine_id", name)
    monkeypatch.setattr(study_module, "NUM_READERS", 1)
    monkeypatch.setattr(
        study_module,
        "seconds_since_boot",
        lambda: current[-1].now + clock_offset(name()),
    )

    def make(seed):
        current.append(World(seed, tmp_path))
        return current[-1]

    return make


def assert_consistent(world):
    """One end an attempt, one done end a trial, and one owner at a time."""
    assert not world.errors
    found = study(world.folder, Space(seeds(TRIALS)))
    found.storage.files = world.memory
    world.memory.past = [list(world.memory.content)]
    for trial in found.trials():
        outcomes = [attempt.outcome for attempt in trial.attempts]
        assert trial.state == trial_state.DONE
        assert outcomes[:-1] == [trial_state.INTERRUPTED] * (len(outcomes) - 1)
        owners = world.runs[trial.number]
        assert owners == sorted(owners)  # no attempt writes after a later one
        assert len(owners) == STEPS, owners
        world.counts["attempts"] += len(outcomes)


def test_no_interleaving_gives_a_trial_two_owners_or_two_ends(world, capsys):
    counts = collections.Counter()
    for seed in range(25):
        one = world(seed)
        one.run()
        assert_consistent(one)
        counts += one.counts
    # Each fault has happened.
    assert counts["attempts"] > 40 * TRIALS
    assert counts["killed"] >= 50
    for name in ("failed calls", "leases lost", "leases expired"):
        assert counts[name] > 0, counts


@pytest.mark.slow
def test_no_interleaving_of_thousands_does(world, capsys):
    counts = collections.Counter()
    for seed in range(1000, 4000):
        one = world(seed)
        one.run()
        assert_consistent(one)
        counts += one.counts
    with capsys.disabled():
        print("\n", dict(counts))
