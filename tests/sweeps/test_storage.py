"""Where a study is kept may be away, locked, or cut short by a kill."""

import sqlite3
import threading

import pytest
import sqlalchemy.exc

from helpers.toy_sweep import study
from sweeps.storage import JournalLock, Patient, drop_half_line, open_storage, shown
from training.signals import StopRequested
from utils.errors import UserError


class Away:
    """A storage that does not answer so many times."""

    def __init__(self, times):
        self.times = times

    def __call__(self):
        self.times -= 1
        if self.times >= 0:
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("refused"))
        return "answer"


class Moments(threading.Event):
    """Time passes only where one waits."""

    def __init__(self):
        super().__init__()
        self.pauses = []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        return self.is_set()

    def clock(self):
        return sum(self.pauses)


def test_a_storage_that_is_away_is_asked_again_with_longer_pauses(capsys):
    moments = Moments()
    assert Patient("toy", moments, clock=moments.clock)(Away(6)) == "answer"
    assert moments.pauses == sorted(moments.pauses)
    assert len(set(moments.pauses)) > 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_storage_that_stays_away_is_told_in_one_line():
    moments = Moments()
    with pytest.raises(UserError) as told:
        Patient("toy", moments, 100, moments.clock)(Away(10**6))
    assert "no trial is lost" in str(told.value)
    assert "refused" in str(told.value)
    assert 100 <= moments.clock() < 131


def test_a_signal_ends_the_waiting():
    moments = Moments()
    moments.set()
    with pytest.raises(StopRequested):
        Patient("toy", moments, clock=moments.clock)(Away(1))


def test_a_locked_database_is_waited_for(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}?timeout=0.1"
    found = study(tmp_path, url=url)
    lock = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.0, lock.rollback).start()
    assert found.claim().slot == 0


@pytest.mark.parametrize("url", ["no url", "nosuch://host/db", "mysql+none://a/b"])
def test_what_is_no_url_is_refused(tmp_path, url):
    with pytest.raises(UserError, match="--storage"):
        open_storage(url, tmp_path / "journal.log")


def test_a_password_is_never_shown():
    assert "secret" not in shown("postgresql://me:secret@host/db")
    assert "host" in shown("postgresql://me:secret@host/db")


def test_half_a_line_of_a_killed_process_is_removed(tmp_path):
    claim = study(tmp_path).claim()
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    found = study(tmp_path)
    assert found.claim().slot == claim.slot + 1
    assert study(tmp_path).claim().slot == claim.slot + 2


def test_whole_lines_are_left_as_they_are(tmp_path):
    path = tmp_path / "journal"
    for content, kept in [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n")]:
        path.write_bytes(content)
        drop_half_line(path)
        assert path.read_bytes() == kept


def test_the_journal_is_locked_for_others(tmp_path):
    one, other = (JournalLock(tmp_path / "journal.log") for _ in range(2))
    one.acquire()
    waited = threading.Thread(target=other.acquire)
    waited.start()
    waited.join(0.2)
    assert waited.is_alive()
    one.release()
    waited.join(5)
    assert not waited.is_alive()
