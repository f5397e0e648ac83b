"""Who runs a trial, and whether he still does.

A lease names a process by machine, process id and the time it began, since ids are
given again. On the same machine that tells at once whether it lives. Of another
machine one sees heartbeats alone: a lease whose heartbeat stays as it is for EXPIRY
seconds is dead. That is measured by the clock of whoever looks on, so clocks of
different machines need not agree.
"""

import dataclasses
import functools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Hashable
from pathlib import Path

HEARTBEAT = 30.0  # seconds between two
EXPIRY = 180.0  # seconds without one


@dataclasses.dataclass(frozen=True)
class Lease:
    """Who holds a trial.

    Attributes:
      place: a machine since it was booted, as its processes see it.
      began: when the process did, in units of its machine.
      heartbeat: seconds since 1970, of its machine's clock.
    """

    place: str
    process: int
    began: str
    heartbeat: float

    @classmethod
    def mine(cls) -> "Lease":
        """That of this process, now."""
        process = os.getpid()
        return cls(place(), process, began(process), time.time())

    @classmethod
    def of_json(cls, document: dict) -> "Lease":
        """What `to_json` gave."""
        return cls(**document)

    def to_json(self) -> dict:
        """For a storage."""
        return dataclasses.asdict(self)


class Watch:
    """Which leases are held by processes that live."""

    def __init__(
        self,
        here: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: Callable[[int], str | None] | None = None,
    ):
        """Args: here, clock, began: this place, seconds, when a process began."""
        self.here = place() if here is None else here
        self.clock = clock
        self.began = began or globals()["began"]
        self.seen: dict[Hashable, tuple[Lease | None, float]] = {}

    def is_alive(self, key: Hashable, lease: Lease | None) -> bool:
        """Whether the holder of `lease` lives, as far as one can see.

        Args:
          key: what the lease is of. A trial just begun has None for a moment.
        """
        if lease is not None and lease.place == self.here:
            return self.began(lease.process) == lease.began
        before, since = self.seen.get(key, (None, None))
        if since is None or before != lease:
            self.seen[key] = lease, self.clock()
            return True
        return self.clock() - since < EXPIRY


@functools.cache
def place() -> str:
    """The machine since it was booted, and its table of processes."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            found = os.readlink(path) if "ns" in path else Path(path).read_text()
            parts.append(found.strip())
        except OSError:
            continue
    return "/".join(parts)


def began(process: int) -> str | None:
    """When a process began, as its machine says it; None: there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ends just now
        if Path("/proc/self/stat").exists():
            return None
        return _began_elsewhere(process)
    state, *fields = stat.rpartition(")")[2].split()  # a name may hold anything
    return None if state in "ZX" else fields[18]  # field 22 of all


def _began_elsewhere(process: int) -> str | None:
    """Without /proc, as on macOS."""
    order = ["ps", "-o", "lstart=", "-p", str(process)]
    told = subprocess.run(order, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None
