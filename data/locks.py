"""Work that one process does while the others wait for it."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def one_at_a_time(path: Path, work: str) -> Iterator[None]:
    """Holds the lock file `path`, after waiting for whoever else holds it.

    The kernel frees the lock of a process that dies. Where there are no locks (some
    network file systems) nobody waits.

    Args:
      work: what is done, as "prepares ptb"; who waits is told.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, work) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, {time.ctime()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, work: str) -> Iterator:
    """Opens and locks `path`, anew if it was removed while we waited."""
    while True:
        with path.open("a+") as file:
            _wait_for(file, work)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return


def _wait_for(file, work: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        print(f"waiting for {holder}, which {work}", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
