"""Storage of a study: unreachable, locked, or with an incomplete line."""

import sqlite3
import threading

import pytest
import sqlalchemy.exc

from helpers.toy_sweep import study
from sweeps.scheduler import claim_next
from sweeps.storage import (
    JournalLock,
    RetryingStorage,
    drop_incomplete_line,
    open_storage,
    redact_url,
)
from training.signals import StopRequested
from utils.errors import UserError


class Unreachable:
    """Storage that fails a number of times."""

    def __init__(self, times):
        self.times = times

    def __call__(self):
        self.times -= 1
        if self.times >= 0:
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("refused"))
        return "answer"


class FakeTime(threading.Event):
    """Clock and event whose time passes only in `wait`."""

    def __init__(self):
        super().__init__()
        self.pauses = []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        return self.is_set()

    def clock(self):
        return sum(self.pauses)


def test_a_storage_is_retried_with_growing_pauses(capsys):
    fake_time = FakeTime()
    assert (
        RetryingStorage("toy", fake_time, clock=fake_time.clock)(Unreachable(6))
        == "answer"
    )
    assert fake_time.pauses == sorted(fake_time.pauses)
    assert len(set(fake_time.pauses)) > 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_storage_that_stays_unreachable_is_an_error_in_one_line():
    fake_time = FakeTime()
    with pytest.raises(UserError) as error:
        RetryingStorage("toy", fake_time, 100, fake_time.clock)(Unreachable(10**6))
    assert "no trial is lost" in str(error.value)
    assert "refused" in str(error.value)
    assert 100 <= fake_time.clock() < 131


def test_a_signal_ends_the_retries():
    fake_time = FakeTime()
    fake_time.set()
    with pytest.raises(StopRequested):
        RetryingStorage("toy", fake_time, clock=fake_time.clock)(Unreachable(1))


def test_a_locked_database_is_waited_for(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}?timeout=0.1"
    found = study(tmp_path, url=url)
    lock = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.0, lock.rollback).start()
    assert claim_next(found).trial == 0


@pytest.mark.parametrize("url", ["no url", "nosuch://host/db", "mysql+none://a/b"])
def test_an_invalid_url_is_refused(tmp_path, url):
    with pytest.raises(UserError, match="--storage"):
        open_storage(url, tmp_path / "journal.log")


def test_a_password_is_never_shown():
    assert "secret" not in redact_url("postgresql://me:secret@host/db")
    assert "host" in redact_url("postgresql://me:secret@host/db")


def test_an_incomplete_line_of_a_killed_process_is_removed(tmp_path):
    claim = claim_next(study(tmp_path))
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    found = study(tmp_path)
    assert claim_next(found).trial == claim.trial + 1
    assert claim_next(study(tmp_path)).trial == claim.trial + 2


def test_only_incomplete_lines_are_removed(tmp_path):
    path = tmp_path / "journal"
    for content, kept in [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n")]:
        path.write_bytes(content)
        drop_incomplete_line(path)
        assert path.read_bytes() == kept


def test_a_lock_of_the_journal_excludes_others(tmp_path):
    one, other = (JournalLock(tmp_path / "journal.log") for _ in range(2))
    one.acquire()
    waited = threading.Thread(target=other.acquire)
    waited.start()
    waited.join(0.2)
    assert waited.is_alive()
    one.release()
    waited.join(5)
    assert not waited.is_alive()
