"""That a run directory is trained in by one process at a time."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from utils.errors import UserError
from utils.paths import is_remote

# EBADF: NFS locks only what is open to be written, which a folder never is.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@contextlib.contextmanager
def alone_in(folder: Path | epath.Path) -> Iterator[None]:
    """Holds a folder, which is made if it is not there, and leaves no file in it.

    The kernel frees what a process held that dies. In a bucket, and where there are no
    locks (some network file systems), nobody is kept away.

    Raises UserError where another process holds it.
    """
    if is_remote(folder):
        yield
        return
    os.makedirs(folder, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        _lock(held, folder)
        yield
    finally:
        os.close(held)


def _lock(held: int, folder: Path | epath.Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process trains in {folder}: wait for its end, or choose another "
            "--workdir"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
