"""Trials on all processes of a slice: process 0 announces them, the others follow."""

import functools
import threading

import pytest

from helpers.toy_sweep import results, toy_command, toy_sweep
from sweeps.launch import Placement
from sweeps.search_space import Space, seeds
from sweeps.slices import Slice, follow
from sweeps.storage import Storage
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import start_trials
from utils.errors import UserError

HOSTS = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "t1k-w-0,t1k-w-1,t1k-w-2"}


def group_of(process_id):
    return Slice("name", 2, process_id, "localhost:1234")


def start_follower(folder, codes, stopped=None):
    start = functools.partial(start_trials, command=toy_command())
    configs = TrialConfigs("configs/cldr.py", "rnn", {})
    stopped = stopped or threading.Event()

    def run():
        storage = Storage(folder)
        storage.poll_seconds = 0.05
        codes.append(follow(group_of(1), configs, 3, storage, stopped, start))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_all_processes_train_each_trial_in_turn(tmp_path):
    codes = []
    group_of(0).announce(Storage(tmp_path), num_trials=2)  # an earlier, smaller sweep
    follower = start_follower(tmp_path, codes)
    sweep = toy_sweep(tmp_path, Space(seeds(3)), workers=1, group=group_of(0))
    assert sweep.run() == 0
    group_of(0).announce(sweep.storage, num_trials=3)
    follower.join(20)
    assert codes == [0]
    assert [row["state"] for row in results(tmp_path)] == ["done"] * 3
    for trial in range(3):
        part = tmp_path / f"trials/{trial:04}/part-1"
        assert part.read_text() == "['localhost:1234', 2, 1]\n"
        assert (tmp_path / f"logs/{trial:04}-process-1.log").exists()
    assert sweep.storage.list("slices") == [
        f"slices/name/{number:06}.json" for number in range(5)
    ]


def test_a_process_that_is_stopped_ends(tmp_path):
    codes, stopped = [], threading.Event()
    follower = start_follower(tmp_path, codes, stopped)
    stopped.set()
    follower.join(20)
    assert codes == [75]


def test_a_slice_is_found_in_the_environment():
    found = Slice.from_environment(environment=HOSTS)
    assert found == Slice("t1k-w-0", 3, 1)
    assert found.distributed == (None, None, None)  # JAX finds the others
    address = "10.0.0.1:8476", 4, 2
    assert Slice.from_environment(*address, environment=HOSTS).distributed == address
    for given in ((None, None, None), ("a:1", 2, None)):
        with pytest.raises(UserError, match="needs TPU_WORKER_ID"):
            Slice.from_environment(*given, environment={})


def test_a_slice_trains_one_trial_at_a_time():
    with pytest.raises(UserError, match="one trial at a time"):
        Placement(workers=2, group=group_of(0))
    assert Placement(group=group_of(0)).allocate()[0].count >= 1
