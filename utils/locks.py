"""Locks between processes, which the kernel frees when their holder dies.

Where a file system has no locks (some network file systems), nobody waits and nobody
is refused.
"""

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import portalocker
from etils import epath

from utils.errors import UserError
from utils.paths import is_remote

# EBADF: NFS locks only files opened for writing, which a directory never is.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@contextlib.contextmanager
def file_lock(path: Path, purpose: str) -> Iterator[None]:
    """Holds the lock file `path`, after waiting for the process that holds it.

    Args:
      purpose: for the message to processes that wait, such as "prepares ptb".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_locked(path, purpose) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, {time.ctime()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(folder: Path | epath.Path) -> Iterator[None]:
    """Holds a run directory, which is created if missing; leaves no file in it.

    A folder of a bucket cannot be locked.

    Raises:
      UserError: another process holds it.
    """
    if is_remote(folder):
        yield
        return
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        acquire(descriptor, wait=False)
        yield
    except portalocker.AlreadyLocked as error:
        raise UserError(
            f"another process trains in {folder}: wait for its end, or choose another "
            "--workdir"
        ) from error
    finally:
        os.close(descriptor)


def is_held(folder: Path | epath.Path) -> bool:
    """Whether a process holds a run directory; True where there are no locks."""
    if is_remote(folder):
        return True
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return not acquire(descriptor, wait=False)
    except portalocker.AlreadyLocked:
        return True
    finally:
        os.close(descriptor)


def acquire(file: IO | int, *, wait: bool) -> bool:
    """Locks an open file or directory until it is closed; False without locks.

    Raises:
      portalocker.AlreadyLocked: another process holds it, and `wait` is False.
    """
    flags = portalocker.LockFlags.EXCLUSIVE
    if not wait:
        flags |= portalocker.LockFlags.NON_BLOCKING
    try:
        portalocker.lock(file, flags)
    except portalocker.AlreadyLocked:
        raise
    except portalocker.LockException as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in UNSUPPORTED:
            return False
        raise cause or error from None
    return True


@contextlib.contextmanager
def _open_locked(path: Path, purpose: str) -> Iterator[IO]:
    """Opens and locks `path`, again if its holder removed it meanwhile."""
    while True:
        with path.open("a+") as file:
            try:
                acquire(file, wait=False)
            except portalocker.AlreadyLocked:
                file.seek(0)
                holder = file.read() or "another process"
                print(f"waiting for {holder}, which {purpose}", file=sys.stderr)
                acquire(file, wait=True)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return
