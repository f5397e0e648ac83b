"""Processes wait for a lock file, and are refused a locked run directory."""

import errno
import threading

import pytest

from utils import locks
from utils.errors import UserError
from utils.locks import exclusive_lock, file_lock


def test_one_process_trains_in_a_directory(tmp_path):
    folder = tmp_path / "run"
    with (
        exclusive_lock(folder),
        pytest.raises(UserError, match="another process trains"),
        exclusive_lock(folder),
    ):
        pass
    with exclusive_lock(folder):  # free again
        assert not list(folder.iterdir())


def test_a_lock_file_is_waited_for_and_then_removed(tmp_path, capsys):
    path, entered = tmp_path / "folder" / "work.lock", threading.Event()

    def other():
        with file_lock(path, "works"):
            entered.set()

    with file_lock(path, "works"):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(20)
    thread.join(20)
    assert not path.exists()
    err = capsys.readouterr().err
    assert "waiting for process" in err
    assert err.endswith("which works\n")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_nobody_is_refused(tmp_path, monkeypatch, code):
    def unsupported(*args):
        cause = OSError(code, "no locks")
        raise locks.portalocker.LockException(cause) from cause

    monkeypatch.setattr(locks.portalocker, "lock", unsupported)
    with exclusive_lock(tmp_path), exclusive_lock(tmp_path):
        pass
    with file_lock(tmp_path / "a.lock", "works"):
        pass


def test_another_error_of_the_file_system_is_raised(tmp_path, monkeypatch):
    def full(*args):
        cause = OSError(errno.ENOSPC, "no space left")
        raise locks.portalocker.LockException(cause) from cause

    monkeypatch.setattr(locks.portalocker, "lock", full)
    with pytest.raises(OSError, match="no space left"), exclusive_lock(tmp_path):
        pass
