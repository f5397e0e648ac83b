"""Storage of a sweep: small files in one folder, on a disk or in a bucket.

The study consists of JSON documents that are written once. `Storage.create` writes a
document only if its name is free: of several processes exactly one succeeds. Listings
may be stale, since nothing but `create` decides. `Storage.write` overwrites a document,
which its owner alone does. Every write is atomic: readers see all of it or nothing.
"""

import contextlib
import errno
import json
import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from etils import epath
from fsspec.spec import AbstractFileSystem

from training.signals import StopRequested
from utils import strict_json
from utils.errors import UserError
from utils.paths import is_read_only, is_remote, resolve_path

TIMEOUT_SECONDS = 600.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
# Seconds between two looks at a file that grows, on a disk and in a bucket.
DISK_POLL_SECONDS, BUCKET_POLL_SECONDS = 1.0, 10.0
PERMANENT_CODES = (400, 401, 403, 404)  # of HTTP
PERMANENT_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


def run_name(trial: int) -> str:
    """Returns the name of a trial's run directory in the sweep's folder."""
    return f"trials/{trial:04}"


def log_name(trial: int, part: int = 0) -> str:
    """Returns the name of the file with the output of a trial's processes.

    Args:
      part: index of the process among those that train the trial together.
    """
    return f"logs/{trial:04}{f'-process-{part}' if part else ''}.log"


class DiskFiles:
    """Files of a folder on a disk, which several machines may share."""

    def __init__(self, path: Path | epath.Path):
        self.system, root = self._open(path)
        self.root = root.rstrip("/")

    def _open(self, path: Path | epath.Path) -> tuple[AbstractFileSystem, str]:
        return fsspec.filesystem("file"), os.path.abspath(path)

    def create(self, name: str, content: bytes) -> None:
        """Writes a new file; raises FileExistsError if there is one."""
        path = Path(self.root, name)
        with self._draft(path, content) as draft:
            try:
                os.link(draft, path)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with path.open("xb") as file:
                    file.write(content)

    def write(self, name: str, content: bytes) -> None:
        path = Path(self.root, name)
        with self._draft(path, content) as draft:
            draft.replace(path)

    @contextlib.contextmanager
    def _draft(self, path: Path, content: bytes) -> Iterator[Path]:
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        return self.system.cat_file(f"{self.root}/{name}")

    def size(self, name: str) -> int:
        return self.system.size(f"{self.root}/{name}")

    def delete(self, name: str) -> None:
        self.system.rm_file(f"{self.root}/{name}")

    def list(self, folder: str) -> list[str]:
        start = len(self.root) + 1
        return [path[start:] for path in self.system.find(f"{self.root}/{folder}")]

    def check(self) -> None:
        """Does nothing: every disk has files that are created exclusively."""


class BucketFiles(DiskFiles):
    """Objects of a bucket below a prefix, which are written whole."""

    def _open(self, path: Path | epath.Path) -> tuple[AbstractFileSystem, str]:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs what it raises
        return fsspec.url_to_fs(str(path))

    def create(self, name: str, content: bytes) -> None:
        try:
            self.write(name, content, mode="create")
        except OSError as error:  # s3fs has no class of its own for this answer
            if "pre-condition" in str(error):
                raise FileExistsError(name) from error
            raise

    def write(self, name: str, content: bytes, **options) -> None:
        try:
            self.system.pipe_file(f"{self.root}/{name}", content, **options)
        except FileNotFoundError as error:
            bucket = self.root.partition("/")[0]
            raise UserError(f"the bucket {bucket} does not exist: {error}") from error

    def check(self) -> None:
        """Creates one object twice, of which the second attempt must be refused.

        Raises:
          UserError: the library does not write conditionally, or the server does not.
        """
        name, reason = f"probe-{uuid.uuid4().hex}", None
        function = getattr(self.system.pipe_file, "__func__", None)
        if function is AbstractFileSystem.pipe_file:  # it looks and then writes
            reason = f"{type(self.system).__name__} has no conditional writes"
        else:
            try:
                self.create(name, b"first")
                self.create(name, b"second")
                reason = "its server ignores the condition of conditional writes"
            except FileExistsError:
                pass
            except Exception as error:  # of an argument that an older version lacks
                if not re.search(r"\W[mM]ode\W", str(error)):
                    raise
                reason = f"{type(self.system).__name__} has no conditional writes"
            with contextlib.suppress(FileNotFoundError):
                self.delete(name)
        if reason:
            raise UserError(
                f"{self.root}: {reason}, which a sweep needs: choose another bucket or "
                "a --workdir on a disk"
            )


class Storage:
    """Files of a sweep by their names in its folder.

    Calls that fail for a while are repeated with growing pauses.

    Attributes:
      path: the folder.
      poll_seconds: time between two looks at a file that grows.
    """

    def __init__(
        self,
        path: str | Path | epath.Path,
        stopped: threading.Event | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        files: Any = None,
    ):
        """Opens a folder, which need not exist.

        Args:
          stopped: event that is set when a signal asks the sweep to stop.
          timeout: seconds after which a call gives up.
          files: what to use instead of DiskFiles or BucketFiles.

        Raises:
          UserError: the path cannot be reached.
        """
        self.path = resolve_path(path)
        self.is_remote = is_remote(path)
        self.files = files or (BucketFiles if self.is_remote else DiskFiles)(self.path)
        self.poll_seconds = (
            BUCKET_POLL_SECONDS if is_remote(path) else DISK_POLL_SECONDS
        )
        self.stopped = stopped or threading.Event()
        self.timeout, self.clock = timeout, clock

    def create(self, name: str, document: dict) -> bool:
        """Writes a document if its name is free; returns whether it was.

        The answer to a write may be lost after the write took effect. Then the random
        token in the document tells whose it is.
        """
        token = uuid.uuid4().hex
        content = _encode({**document, "token": token})

        def attempt() -> bool:
            try:
                self.files.create(name, content)
            except FileExistsError:
                return (self.read(name) or {}).get("token") == token
            return True

        return self._retry(attempt)

    def write(self, name: str, document: dict) -> None:
        """Writes a document of which this process is the only writer."""
        self.write_bytes(name, _encode(document))

    def read(self, name: str) -> dict | None:
        """Returns a document; None if there is none."""
        content = self.read_bytes(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise UserError(f"{self.path / name} is damaged: {error}") from error

    def list(self, folder: str) -> list[str]:
        """Returns the names of all files below a folder, some perhaps missing."""
        names = self._retry(self.files.list, folder)
        return sorted(name for name in names if not name.endswith(".draft"))

    def read_bytes(self, name: str) -> bytes | None:
        """Returns the content of a file; None if there is none."""
        return self._retry(_or_none, lambda: self.files.read(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file atomically, in place of an older one."""
        self._retry(self.files.write, name, content)

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if there is none."""
        return self._retry(_or_none, lambda: self.files.size(name))

    def delete(self, name: str) -> None:
        """Removes a file if there is one."""
        self._retry(_or_none, lambda: self.files.delete(name))

    def check(self) -> None:
        """Raises UserError where documents cannot be created exclusively."""
        self._retry(self.files.check)

    def _retry(self, function: Callable, *arguments: Any) -> Any:
        """Returns the result of `function` as soon as it does not fail.

        Raises:
          UserError: it failed until the timeout, or for a reason that stays.
          StopRequested: a signal came meanwhile.
        """
        begin, pause = self.clock(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return function(*arguments)
            except Exception as error:  # each library of a bucket raises its own
                if not self._is_transient(error):
                    raise
                waited, reason = self.clock() - begin, _first_line(error)
            if waited >= self.timeout:
                raise UserError(
                    f"{self.path} has not answered for {waited:.0f} s ({reason}); "
                    "no trial is lost: the same command resumes the sweep"
                )
            if pause == FIRST_PAUSE_SECONDS:
                message = f"{self.path} is unreachable, retrying: {reason}"
                print(message, file=sys.stderr)
            if self.stopped.wait(min(pause, self.timeout - waited)):
                raise StopRequested
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _is_transient(self, error: Exception) -> bool:
        """Returns whether a call may succeed later.

        Raises:
          UserError: access to the bucket is refused.
        """
        name, code = type(error).__name__, str(getattr(error, "code", ""))
        is_refused = "Credentials" in name or "Authentication" in name
        is_refused |= isinstance(error, PermissionError) or "Forbidden" in str(error)
        if self.is_remote and (is_refused or code in map(str, PERMANENT_CODES)):
            raise UserError(
                f"{self.path} refuses access ({name}: {_first_line(error)}): are your "
                "credentials right, and may they write there?"
            ) from error
        if isinstance(error, OSError):
            return not (isinstance(error, PERMANENT_ERRORS) or is_read_only(error))
        is_ours = isinstance(error, UserError)
        return not is_ours and type(error).__module__ != "builtins"


def _or_none(function: Callable) -> Any:
    try:
        return function()
    except FileNotFoundError:
        return None


def _encode(document: dict) -> bytes:
    return (strict_json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
