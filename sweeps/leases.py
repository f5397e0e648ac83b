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
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import psutil

HEARTBEAT = 30.0  # seconds between two
EXPIRY = 180.0  # seconds without one


@dataclasses.dataclass(frozen=True)
class Lease:
    """Who holds a trial.

    Attributes:
      place: a machine since it was booted, as its processes see it.
      start_time: of the process, in seconds after its machine was booted.
      heartbeat: seconds since 1970, of its machine's clock.
    """

    place: str
    process: int
    start_time: float
    heartbeat: float

    @classmethod
    def mine(cls) -> "Lease":
        """That of this process, now."""
        process = os.getpid()
        return cls(place(), process, start_time(process), time.time())

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
        start_time: Callable[[int], float | None] | None = None,
    ):
        """Args: here, clock, start_time: this place, seconds, when a process began."""
        self.here = place() if here is None else here
        self.clock = clock
        self.start_time = start_time or globals()["start_time"]
        self.seen: dict[Hashable, tuple[Lease | None, float]] = {}

    def is_alive(self, key: Hashable, lease: Lease | None) -> bool:
        """Whether the holder of `lease` lives, as far as one can see.

        Args:
          key: what the lease is of. A trial just begun has None for a moment.
        """
        if lease is not None and lease.place == self.here:
            return self.start_time(lease.process) == lease.start_time
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


def start_time(process: int) -> float | None:
    """Start of a process in seconds after boot; None where it has ended.

    Both times of psutil follow corrections of the clock; their difference does not.
    """
    try:
        found = psutil.Process(process)
        if found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return round(found.create_time() - psutil.boot_time(), 2)
    except psutil.NoSuchProcess:
        return None
