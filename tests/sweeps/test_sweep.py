"""Sweeps of toy trials: killed and resumed, shared, and with failures of all kinds."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers import toy_trial
from helpers.toy_sweep import begin, results, toy_sweep
from sweeps import trial_state
from sweeps.scheduler import claim_next
from sweeps.search_space import Space, asha, grid, listed, log_uniform, seeds, tpe
from sweeps.storage import Storage
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import outcome_from_exit_code
from sweeps.trial_state import LEASE_SECONDS, seconds_since_boot
from sweeps.worker import RunningTrial
from utils.errors import UserError


def lines(folder, trial, name):
    path = folder / "trials" / f"{trial:04}" / name
    return path.read_text().splitlines() if path.exists() else []


def steps(folder, trial):
    return [json.loads(line)["step"] for line in lines(folder, trial, "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a sweep that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    assert toy_sweep(folder, workers=4).run() == 0
    return folder


def assert_equals_whole(folder, whole):
    assert results(folder) == results(whole)
    for trial in range(12):
        assert steps(folder, trial) == list(range(1, toy_trial.STEPS + 1))
        assert lines(folder, trial, "ends") == ["end"]


def test_all_trials_are_done_once(whole):
    found = results(whole)
    assert [row["state"] for row in found] == ["done"] * 12
    assert [row["point"] for row in found] == [{"seed": n} for n in range(12)]
    assert [row["value"] for row in found] == [100 + n + 0.1 for n in range(12)]
    assert_equals_whole(whole, whole)


def in_the_middle(folder):
    """Returns the trials with some of their steps."""
    return [n for n in range(12) if 0 < len(steps(folder, n)) < toy_trial.STEPS]


def test_a_sweep_killed_twice_has_the_results_of_an_uninterrupted_one(tmp_path, whole):
    killed = []
    for wanted in (1, 5):
        process = begin(tmp_path)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            middle = [n for n in in_the_middle(tmp_path) if n >= wanted]
            if middle:
                break
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed += [n for n in in_the_middle(tmp_path) if n >= wanted]
    assert len(killed) >= 2
    assert begin(tmp_path).wait(60) == 0
    assert_equals_whole(tmp_path, whole)
    for trial in killed:
        assert len(lines(tmp_path, trial, "processes")) >= 2
        assert (
            "starts after 0"
            not in (tmp_path / "logs" / f"{trial:04}.log").read_text().splitlines()[-1:]
        )


def test_two_processes_share_a_sweep(tmp_path, whole):
    both = [begin(tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert_equals_whole(tmp_path, whole)
    for trial in range(12):
        assert len(lines(tmp_path, trial, "processes")) == 1


def test_a_trial_whose_end_nobody_saw_is_not_started_again(tmp_path, whole):
    shutil.copytree(whole / "trials", tmp_path / "trials")
    for folder in (tmp_path / "trials").iterdir():
        (folder / "processes").unlink()
    assert toy_sweep(tmp_path).run() == 0
    assert_equals_whole(tmp_path, whole)
    assert not list(tmp_path.glob("trials/*/processes"))


def test_trials_end_with_the_process_that_started_them(tmp_path):
    process = begin(tmp_path)
    while not in_the_middle(tmp_path):
        time.sleep(0.005)
    process.kill()  # that one alone, not its group
    process.wait()
    trials = [int(pid) for n in range(12) for pid in lines(tmp_path, n, "processes")]
    deadline = time.monotonic() + 5
    while any(map(is_running, trials)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, trials))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_after_a_signal_the_same_command_resumes(tmp_path, whole):
    stopped = threading.Event()
    sweep = toy_sweep(tmp_path, stopped=stopped)
    waiting = threading.Timer(1.0, stopped.set)
    waiting.start()
    assert sweep.run() == 75
    assert sweep.running == [[], []]
    assert "running" not in {row["state"] for row in results(tmp_path)}
    assert toy_sweep(tmp_path, workers=4).run() == 0
    assert_equals_whole(tmp_path, whole)


class Outage:
    """Files of a folder that cannot be reached for some calls after the first ones."""

    def __init__(self, files, first, last):
        self.files, self.failing, self.calls = files, range(first, last), 0

    def __getattr__(self, name):
        method = getattr(self.files, name)

        def call(*arguments):
            self.calls += 1
            if self.calls in self.failing:
                raise ConnectionResetError("nobody there")
            return method(*arguments)

        return call


def unreliable(folder, first, last, timeout=60):
    storage = Storage(folder, timeout=timeout)
    storage.files = Outage(storage.files, first, last)
    storage.stopped.wait = lambda seconds: time.sleep(0.01)
    return storage


def test_the_storage_may_be_unreachable_for_a_while(tmp_path, whole, capsys):
    storage = unreliable(tmp_path, 60, 70)
    assert toy_sweep(tmp_path, storage=storage).run() == 0
    assert capsys.readouterr().err.count("is unreachable, retrying") == 1
    assert_equals_whole(tmp_path, whole)


def test_a_storage_that_stays_unreachable_ends_the_sweep_without_loss(tmp_path, whole):
    storage = unreliable(tmp_path, 60, 10**9, timeout=0.2)
    sweep = toy_sweep(tmp_path, storage=storage)
    with pytest.raises(UserError, match="no trial is lost"):
        sweep.run()
    assert sweep.running == [[], []]
    successor = toy_sweep(tmp_path, workers=4)
    dead = {trial.number for trial in successor.study.trials() if trial.attempts}
    successor.study.monitor.is_alive = lambda attempt: (
        attempt.index > 0 or attempt.trial not in dead
    )
    assert successor.run() == 0
    assert_equals_whole(tmp_path, whole)


def test_trials_that_fail_are_listed_and_the_others_are_done(tmp_path):
    troubles = [toy_trial.DIVERGES, toy_trial.FAILS, toy_trial.FAILS_ONCE, 7]
    out = io.StringIO()
    sweep = toy_sweep(tmp_path, Space(grid({"seed": troubles}), retries=2), out=out)
    assert sweep.run() == 0
    found = results(tmp_path)
    assert [r["state"] for r in found] == ["diverged", "failed", "done", "done"]
    assert found[1]["error"] == "exit code 1: boom"
    attempts = [len(lines(tmp_path, n, "processes")) for n in range(4)]
    assert attempts == [1, 3, 2, 1]
    assert "1 diverged, 1 failed" in out.getvalue()
    before = attempts
    assert toy_sweep(tmp_path, Space(grid({"seed": troubles}), retries=2)).run() == 0
    assert [len(lines(tmp_path, n, "processes")) for n in range(4)] == before


def test_a_key_that_a_model_lacks_fails_its_trials_alone(tmp_path):
    space = Space(grid({"model": ["rnn", "transformer"], "model.heads": [4]}))
    assert toy_sweep(tmp_path, space).run() == 0
    found = results(tmp_path)
    assert [row["state"] for row in found] == ["failed", "done"]
    assert "model.heads" in found[0]["error"]
    assert not (tmp_path / "trials" / "0000").exists()


def test_bad_trials_are_pruned_and_recorded(tmp_path):
    good = [{"optim.lr": rate} for rate in (0.1, 0.2, 0.3)]
    bad = [{"optim.lr": r, "seed": toy_trial.WAITS_LATER} for r in (0.9, 0.8, 0.7)]
    space = Space(listed([*good, *bad]), pruning=asha(factor=2))
    assert toy_sweep(tmp_path, space, workers=1).run() == 0
    found = results(tmp_path)
    assert found[0]["state"] == "done"
    assert [row["state"] for row in found[3:]] == ["pruned"] * 3
    for row in found[3:]:
        assert len(steps(tmp_path, row["trial"])) < toy_trial.STEPS
    assert toy_sweep(tmp_path, space, workers=1).run() == 0  # they stay as they are
    assert results(tmp_path) == found


def test_a_sweep_runs_points_of_tpe(tmp_path):
    space = Space(tpe({"optim.lr": log_uniform(1e-4, 1e-1)}, size=4))
    assert toy_sweep(tmp_path, space).run() == 0
    rates = [row["point"]["optim.lr"] for row in results(tmp_path)]
    assert len(set(rates)) == 4
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)


def test_a_worker_that_loses_its_lease_kills_its_trial(tmp_path, capsys):
    space = Space(grid({"seed": [toy_trial.WAITS]}))
    sweep = toy_sweep(tmp_path, space, workers=1)
    sweep._step()
    ((running,),) = sweep.running
    assert running.process.is_alive
    successor = toy_sweep(tmp_path, space, workers=1)
    successor.study.monitor.is_alive = lambda *_: False
    assert claim_next(successor.study).trial == 0
    running.renewal_time -= 1000  # the next one is due
    sweep._step()
    assert running.process.code() == -signal.SIGKILL
    assert sweep.running == [[]]
    assert "resumed by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "stop_requested", "outcome"),
    [
        (0, False, trial_state.DONE),
        (0, True, trial_state.DONE),
        (3, False, trial_state.DIVERGED),
        (75, False, trial_state.INTERRUPTED),  # without a request
        (
            -signal.SIGTERM,
            True,
            trial_state.INTERRUPTED,
        ),  # before it installed a handler
        (-signal.SIGKILL, False, trial_state.FAILED),  # out of memory, perhaps
        (2, False, trial_state.FAILED),
        (1, True, trial_state.FAILED),
    ],
)
def test_exit_codes_have_the_meaning_of_train_py(code, stop_requested, outcome):
    assert outcome_from_exit_code(code, stop_requested) == outcome


def test_a_trial_ends_itself_when_its_lease_is_not_renewed(tmp_path, monkeypatch):
    """The worker then records it as interrupted, and resumes it."""
    monkeypatch.setenv("TOY_LEASE_SECONDS", "0.5")
    space = Space(grid({"seed": [toy_trial.WAITS]}))
    sweep = toy_sweep(tmp_path, space, workers=1)
    sweep._step()
    ((running,),) = sweep.running
    deadline = time.monotonic() + 20
    while running.process.is_alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.process.code() == -signal.SIGKILL
    running.claim.renewed -= LEASE_SECONDS
    assert sweep._poll(running)
    (trial,) = sweep.study.trials()
    assert (trial.state, trial.last.outcome) == ("open", "interrupted")


@pytest.mark.parametrize("end", ["lease", "input"])
def test_the_process_of_a_trial_ends_with_its_lease_and_its_input(end):
    seconds = 1.5 if end == "lease" else 600.0
    program = (
        "from sweeps.trial_process import listen\n"
        "from sweeps.trial_state import seconds_since_boot\n"
        "print('listening', flush=True)\n"
        f"listen(set(), seconds_since_boot(), {seconds})"
    )
    root = Path(__file__).parents[2]
    order = [sys.executable, "-c", program]
    process = subprocess.Popen(order, stdin=-1, stdout=-1, cwd=root)
    process.stdout.readline()
    begin = time.monotonic()
    if end == "lease":
        process.stdin.write(f"renewed {seconds_since_boot() + 1.0}\n".encode())
        process.stdin.flush()
    else:
        process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    assert end == "input" or time.monotonic() - begin > 2.0


class Saving:
    """Process of a trial that ends after it was polled three times."""

    def __init__(self, storage):
        self.storage, self.run, self.log = storage, "trials/0000", self
        self.stopping, self.polls, self.renewed = False, 0, []

    @property
    def is_alive(self):
        self.polls += 1
        return self.polls <= 3

    def code(self):
        return None if self.polls <= 3 else 75

    def renew(self, seconds):
        self.renewed.append(seconds)

    def stop(self):
        self.stopping = True

    def close(self):
        assert self.polls > 3

    def upload(self):
        pass


def test_leases_are_renewed_while_a_trial_saves_after_a_signal(tmp_path):
    worker = toy_sweep(tmp_path, workers=1)
    claim = claim_next(worker.study)
    saving = Saving(worker.storage)
    running = RunningTrial(claim, saving, renewal_time=time.monotonic() - 60)
    worker.running = [[running]]
    worker.stopped.set()
    assert worker.run() == 75
    assert saving.renewed == [claim.renewed]
    assert claim.renewal == 1
    assert worker.study.trials()[0].state == trial_state.OPEN


def test_the_run_of_another_config_is_not_taken_for_a_trial(tmp_path):
    other = tmp_path / "trials" / "0001"
    other.mkdir(parents=True)
    config = TrialConfigs("configs/cldr.py", "rnn", {}).config({"seed": 9})
    (other / "config.json").write_text(config.to_json_best_effort())
    (other / "exit_code").write_text("0\n")
    row = {"step": 1, "split": "validation", "loss": 0.5}
    (other / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert toy_sweep(tmp_path, Space(seeds(2))).run() == 0
    assert [row["state"] for row in results(tmp_path)] == ["done", "failed"]
    assert "seed is 9 there and 1 here" in results(tmp_path)[1]["error"]
