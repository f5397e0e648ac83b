"""Where a study is kept, and patience with it.

By default a journal file of Optuna's, which all processes that see the directory
share; any SQLAlchemy URL does the same for machines that do not.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileSymlinkLock,
)

from training.signals import StopRequested
from utils import locks
from utils.errors import UserError

AWAY = (
    sqlalchemy.exc.DBAPIError,  # what drivers raise
    sqlalchemy.exc.TimeoutError,
    optuna.exceptions.StorageInternalError,
    OSError,
)
PATIENCE = 600.0  # seconds
LONGEST_PAUSE = 30.0


class Patient:
    """Calls a storage again and again, with longer and longer pauses.

    Attributes:
      name: of the storage, for people.
      patience: seconds after which it is given up.
      stopped: set where a signal asked for an end.
    """

    def __init__(
        self,
        name: str,
        stopped: threading.Event | None = None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.patience, self.clock = name, patience, clock
        self.stopped = stopped or threading.Event()

    def __call__(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """What `function` gives, once the storage answers.

        Raises UserError after too long, StopRequested where a signal came.
        """
        begin, pause = self.clock(), 0.5
        while True:
            try:
                return function(*arguments, **options)
            except AWAY as error:
                waited, why = self.clock() - begin, _first_line(error)
            if waited >= self.patience:
                raise UserError(
                    f"storage {self.name} has not answered for {waited:.0f} seconds "
                    f"({why}); no trial is lost: the same command goes on"
                )
            if pause == 0.5:
                print(f"storage {self.name} is away, waiting: {why}", file=sys.stderr)
            if self.stopped.wait(min(pause, self.patience - waited)):
                raise StopRequested
            pause = min(2 * pause, LONGEST_PAUSE)


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """That of a URL, or of a journal file.

    Raises UserError for a URL that cannot be one.
    """
    if url is None:
        lock = JournalLock(journal)
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise UserError(f"--storage={shown(url)}: {_first_line(error)}") from error


def shown(url: str) -> str:
    """A URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


class JournalLock:
    """A lock that the kernel frees when its process dies.

    Optuna's own is a file that a killed process leaves behind. Who has the lock also
    removes half a line that a killed process wrote, which nobody could read past.
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
            drop_half_line(self.journal)
        return True

    def release(self) -> None:
        if self.file is None:
            self.fallback.release()
        else:
            self.file.close()


def drop_half_line(path: Path) -> None:
    """Removes what follows the last line's end."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            content = path.read_bytes()
            file.truncate(content.rfind(b"\n") + 1)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
