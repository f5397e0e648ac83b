"""Sweeps of toy trials: killed and gone on with, shared, with trouble of all kinds."""

import io
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from helpers import toy_trial
from helpers.toy_sweep import begin, results, toy_sweep
from sweeps import ledger
from sweeps.search_space import Space, asha, grid, listed, log_uniform, tpe
from sweeps.storage import Patient
from sweeps.trial import meaning
from sweeps.worker import Running
from utils.errors import UserError


def lines(folder, slot, name):
    path = folder / "trials" / f"{slot:04}" / name
    return path.read_text().splitlines() if path.exists() else []


def steps(folder, slot):
    return [json.loads(line)["step"] for line in lines(folder, slot, "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert toy_sweep(folder, workers=4).run() == 0
    return folder


def assert_as_whole(folder, whole):
    assert results(folder) == results(whole)
    for slot in range(12):
        assert steps(folder, slot) == list(range(1, toy_trial.STEPS + 1))
        assert lines(folder, slot, "ends") == ["end"]


def test_all_trials_are_done_once(whole):
    found = results(whole)
    assert [row["state"] for row in found] == ["done"] * 12
    assert [row["point"] for row in found] == [{"seed": n} for n in range(12)]
    assert [row["value"] for row in found] == [100 + n + 0.1 for n in range(12)]
    assert_as_whole(whole, whole)


def in_the_middle(folder):
    """Slots with some steps, not all."""
    return [n for n in range(12) if 0 < len(steps(folder, n)) < toy_trial.STEPS]


def test_a_sweep_killed_twice_ends_as_if_it_had_not_been(tmp_path, whole):
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
    assert_as_whole(tmp_path, whole)
    for slot in killed:
        assert len(lines(tmp_path, slot, "processes")) >= 2
        assert (
            "begins after 0"
            not in (tmp_path / "logs" / f"{slot:04}.log").read_text().splitlines()[-1:]
        )


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_a_sweep(tmp_path, whole, kind):
    url = [f"sqlite:///{tmp_path}/study.db"] if kind == "sqlite" else []
    both = [begin(tmp_path, *url) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert_as_whole(tmp_path, whole)
    for slot in range(12):
        assert len(lines(tmp_path, slot, "processes")) == 1


def test_a_trial_whose_end_nobody_saw_is_not_begun_again(tmp_path, whole):
    shutil.copytree(whole / "trials", tmp_path / "trials")
    for folder in (tmp_path / "trials").iterdir():
        (folder / "processes").unlink()
    assert toy_sweep(tmp_path).run() == 0
    assert_as_whole(tmp_path, whole)
    assert not list(tmp_path.glob("trials/*/processes"))


def test_trials_end_with_the_process_that_began_them(tmp_path):
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


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, whole):
    stopped = threading.Event()
    sweep = toy_sweep(tmp_path, stopped=stopped)
    waiting = threading.Timer(1.0, stopped.set)
    waiting.start()
    assert sweep.run() == 75
    assert all(running is None for running in sweep.running)
    assert "running" not in {row["state"] for row in results(tmp_path)}
    assert toy_sweep(tmp_path, workers=4).run() == 0
    assert_as_whole(tmp_path, whole)


class Database:
    """One that does not answer while somebody holds it."""

    def __init__(self, folder):
        self.url = f"sqlite:///{folder / 'study.db'}?timeout=0.1"
        self.path = folder / "study.db"
        self.holder = None

    def hold(self):
        self.holder = sqlite3.connect(self.path, check_same_thread=False, timeout=30)
        self.holder.execute("BEGIN EXCLUSIVE")

    def release(self):
        self.holder.rollback()
        self.holder.close()


def test_a_database_that_is_away_for_a_while_costs_nothing(tmp_path, whole, capsys):
    database = Database(tmp_path)
    sweep = toy_sweep(tmp_path, url=database.url, patient=Patient("toy"))
    threading.Timer(0.8, database.hold).start()
    threading.Timer(1.8, database.release).start()
    assert sweep.run() == 0
    assert "is away" in capsys.readouterr().err
    assert_as_whole(tmp_path, whole)


def test_a_database_that_stays_away_ends_the_sweep_and_no_trial_is_lost(
    tmp_path, whole
):
    database = Database(tmp_path)
    patient = Patient("toy", patience=0.5)
    sweep = toy_sweep(tmp_path, url=database.url, patient=patient)
    threading.Timer(0.8, database.hold).start()
    with pytest.raises(UserError, match="no trial is lost"):
        sweep.run()
    assert sweep.running == [None, None]
    database.release()
    heir = toy_sweep(tmp_path, url=database.url, workers=4)
    dead = {trial.number for trial in heir.study.study.trials}
    heir.study.watch.is_alive = lambda number, _: number not in dead
    assert heir.run() == 0
    assert_as_whole(tmp_path, whole)


def test_trouble_of_some_trials_is_told_and_the_others_are_done(tmp_path):
    trouble = [toy_trial.DIVERGES, toy_trial.FAILS, toy_trial.FAILS_ONCE, 7]
    out = io.StringIO()
    sweep = toy_sweep(tmp_path, Space(grid({"seed": trouble}), retries=2), out=out)
    assert sweep.run() == 0
    found = results(tmp_path)
    assert [r["state"] for r in found] == ["diverged", "failed", "done", "done"]
    assert found[1]["error"] == "exit code 1: boom"
    attempts = [len(lines(tmp_path, n, "processes")) for n in range(4)]
    assert attempts == [1, 3, 2, 1]
    assert "1 diverged, 1 failed" in out.getvalue()
    before = attempts
    assert toy_sweep(tmp_path, Space(grid({"seed": trouble}), retries=2)).run() == 0
    assert [len(lines(tmp_path, n, "processes")) for n in range(4)] == before


def test_a_key_that_only_some_models_have_fails_where_it_is_missing(tmp_path):
    space = Space(grid({"model": ["rnn", "transformer"], "model.heads": [4]}))
    assert toy_sweep(tmp_path, space).run() == 0
    found = results(tmp_path)
    assert [row["state"] for row in found] == ["failed", "done"]
    assert "model.heads" in found[0]["error"]
    assert not (tmp_path / "trials" / "0000").exists()


def test_bad_trials_are_stopped_early_and_recorded(tmp_path):
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


def test_tpe_runs_as_any_other_space(tmp_path):
    space = Space(tpe({"optim.lr": log_uniform(1e-4, 1e-1)}, size=4))
    assert toy_sweep(tmp_path, space).run() == 0
    rates = [row["point"]["optim.lr"] for row in results(tmp_path)]
    assert len(set(rates)) == 4
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)


def test_who_was_taken_for_dead_ends_its_trial_at_once(tmp_path, capsys):
    space = Space(grid({"seed": [toy_trial.WAITS]}))
    sweep = toy_sweep(tmp_path, space, workers=1)
    sweep._step()
    (running,) = sweep.running
    heir = toy_sweep(tmp_path, space, workers=1)
    heir.study.watch.is_alive = lambda *_: False
    assert heir.study.claim().slot == 0
    running.renewed -= 1000  # it is time to
    sweep._step()
    assert running.process.code() == -signal.SIGKILL
    assert sweep.running == [None]
    assert "taken over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "asked", "outcome"),
    [
        (0, False, ledger.DONE),
        (0, True, ledger.DONE),
        (3, False, ledger.DIVERGED),
        (75, False, ledger.INTERRUPTED),  # of its own accord
        (-signal.SIGTERM, True, ledger.INTERRUPTED),  # before it listened
        (-signal.SIGKILL, False, ledger.FAILED),  # out of memory, perhaps
        (2, False, ledger.FAILED),
        (1, True, ledger.FAILED),
    ],
)
def test_exit_codes_mean_what_they_do_for_a_run(code, asked, outcome):
    assert meaning(code, asked) == outcome


class Saving:
    """The process of a trial that takes three looks to save and end."""

    def __init__(self, folder):
        self.metrics, self.stopping, self.looks = folder / "metrics.jsonl", False, 0

    def code(self):
        self.looks += 1
        return None if self.looks <= 3 else 75

    def stop(self):
        self.stopping = True

    def close(self):
        assert self.looks > 3


def test_a_lease_is_renewed_while_a_trial_saves_after_a_signal(tmp_path, monkeypatch):
    found, renewed = toy_sweep(tmp_path, workers=1), []
    claim = found.study.claim()
    found.running = [Running(claim, Saving(tmp_path), time.monotonic() - 60)]
    monkeypatch.setattr(found.study, "renew", renewed.append)
    found.stopped.set()
    assert found.run() == 75
    assert renewed == [claim]
    assert found.study.slots()[0].state == ledger.OPEN
