"""Storage of a study, and calls to it that are retried while it does not answer.

By default the storage is a journal file of Optuna, shared by all processes that see
the sweep's directory; any SQLAlchemy URL serves machines that do not.
"""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from training.signals import StopRequested
from utils import locks
from utils.errors import UserError

TRANSIENT_ERRORS = (
    sqlalchemy.exc.DBAPIError,  # raised by database drivers
    sqlalchemy.exc.TimeoutError,
    optuna.exceptions.StorageInternalError,
    optuna.exceptions.DuplicatedStudyError,  # another process created it just now
    OSError,
)
TIMEOUT_SECONDS = 600.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0


@dataclasses.dataclass
class RetryingStorage:
    """Calls functions of a storage again while they fail, with growing pauses.

    Attributes:
      name: name of the storage in messages.
      stopped: event that is set when a signal asks the sweep to stop.
      timeout: seconds after which it gives up.
    """

    name: str
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)
    timeout: float = TIMEOUT_SECONDS
    clock: Callable[[], float] = time.monotonic

    def __call__(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Returns the result of `function` as soon as the storage answers.

        Raises:
          UserError: the storage did not answer in time.
          StopRequested: a signal came meanwhile.
        """
        begin, pause = self.clock(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return function(*arguments, **options)
            except TRANSIENT_ERRORS as error:
                waited, reason = self.clock() - begin, _first_line(error)
            if waited >= self.timeout:
                raise UserError(
                    f"storage {self.name} has not answered for {waited:.0f} seconds "
                    f"({reason}); no trial is lost: the same command resumes the sweep"
                )
            if pause == FIRST_PAUSE_SECONDS:
                message = f"storage {self.name} is unreachable, retrying: {reason}"
                print(message, file=sys.stderr)
            if self.stopped.wait(min(pause, self.timeout - waited)):
                raise StopRequested
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """Opens the database of a URL, or a journal file.

    Raises:
      UserError: the URL is malformed, or its driver is not installed.
    """
    if url is None:
        lock = JournalLock(journal)
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise UserError(f"--storage={redact_url(url)}: {_first_line(error)}") from error


def redact_url(url: str) -> str:
    """Returns a URL without its password, for messages."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


class JournalLock:
    """Lock of a journal that the kernel releases when its holder dies.

    Optuna's own lock is a file that a killed process leaves behind; it is used only
    where the file system has no locks. The holder also removes the incomplete line of
    a killed process, since Optuna could not read what follows it.
    """

    def __init__(self, journal: Path):
        self.journal = journal
        self.path = journal.with_suffix(".lock")
        self.file = None
        self.fallback = JournalFileSymlinkLock(str(journal))

    def acquire(self) -> bool:
        self.file = self.path.open("a")
        if not locks.acquire(self.file, wait=True):
            self.file.close()
            self.file = None
            return self.fallback.acquire()
        with contextlib.suppress(FileNotFoundError):
            drop_incomplete_line(self.journal)
        return True

    def release(self) -> None:
        if self.file is None:
            self.fallback.release()
        else:
            self.file.close()


def drop_incomplete_line(path: Path) -> None:
    """Truncates a file after the last end of a line."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"", b"\n"):
            file.truncate(path.read_bytes().rfind(b"\n") + 1)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
