"""Which prepared copies of a user's own corpus there are, and of which folder."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from etils import epath

SETTLED = 2  # seconds after which a change shows in a file's times for certain


class PreparedVersions:
    """The prepared copies of a user's own corpus, and of which folder each is.

    `sources.json` beside the copies remembers the key of every folder: files that did
    not change since are not read again, and a copy outlives its folder.

    Attributes:
      folder: where the copies are.
      config: what the names of all copies begin with, before their keys.
      version: of the builder.
    """

    def __init__(self, folder: epath.Path, config: str, version: str):
        self.folder, self.config, self.version = folder, config, version
        self.path = folder / "sources.json"

    def name(self, key: str) -> str:
        """The config of the copy with this key."""
        return f"{self.config}-{key}" if self.config else key

    def has(self, name: str) -> bool:
        """Whether the copy of this config is prepared."""
        return (self.folder / name / self.version / "dataset_info.json").exists()

    def prepared(self) -> list[str]:
        """The configs of all copies."""
        pattern = re.compile(re.escape(self.name("")) + "[0-9a-f]{12}")
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [path.name for path in found if pattern.fullmatch(path.name)]
        return sorted(name for name in names if self.has(name))

    def remembered(self, source: Path) -> dict:
        """What was last known of `source`: key and stamps, or nothing."""
        return self._read().get(f"{self.config} {source}", {})

    def key(self, source: Path, stamps: list, compute: Callable[[], str]) -> str:
        """The key of what `source` holds, computed unless its stamps are known."""
        known = self.remembered(source)
        if known.get("stamps") == stamps:
            return known["key"]
        key = compute()
        newest = max(max(times) for _, _, *times in stamps) / 1e9
        settled = time.time() - newest > SETTLED
        self._write(source, {"key": key, "stamps": stamps if settled else None})
        return key

    def _read(self) -> dict:
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def _write(self, source: Path, entry: dict) -> None:
        draft = self.folder / f".sources-{os.getpid()}.json"
        with contextlib.suppress(OSError):  # it only saves time
            self.folder.mkdir(parents=True, exist_ok=True)
            content = self._read() | {f"{self.config} {source}": entry}
            draft.write_text(json.dumps(content))
            draft.replace(self.path)
