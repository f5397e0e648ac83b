"""A file that grows line by line, also where files are written whole or not at all."""

import time
from pathlib import Path

from etils import epath

from utils.paths import is_remote

PATIENCE = 30  # seconds between two uploads of the same file


class AppendOnlyFile:
    """A file at whose end is written.

    On this machine's disk what is added is there at once. An object of a bucket
    cannot grow: it is written anew, at most twice a minute and whenever `flush` asks.
    """

    def __init__(self, path: Path | epath.Path):
        self.path = path
        self.remote = is_remote(path)
        if self.remote:
            self._content = path.read_bytes() if path.exists() else b""
            self._sent = time.monotonic()

    def add(self, content: bytes) -> None:
        """Writes at the end."""
        if not self.remote:
            with self.path.open("ab") as file:
                file.write(content)
            return
        self._content += content
        if time.monotonic() - self._sent > PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Comes back when all that was added would outlive this process."""
        if self.remote:
            self.path.write_bytes(self._content)
            self._sent = time.monotonic()
