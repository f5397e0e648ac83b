"""Placement of each trial on all hosts of a TPU slice, or on other groups of processes.

Process 0 of the group is a worker of the sweep. It announces each start of a trial in
slices/NAME/n.json, which is written once; the other processes follow, each with its
own part of the trial. They end when process 0 announces the end of the sweep.
"""

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeps.devices import DeviceAllocation
from sweeps.storage import Storage
from sweeps.study import Claim
from sweeps.trial_configs import TrialConfigs
from sweeps.trial_process import (
    FINISHED,
    POLL_SECONDS,
    STOPPED,
    TrialProcess,
    start_trials,
)
from sweeps.trial_state import END, RENEWAL_SECONDS, document_name, seconds_since_boot
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Slice:
    """Processes that train each trial together, and which of them this is.

    Attributes:
      coordinator: HOST:PORT of process 0; None: JAX finds it, as on TPU slices.
    """

    name: str
    num_processes: int
    process_id: int
    coordinator: str | None = None

    @classmethod
    def from_environment(
        cls,
        coordinator: str | None = None,
        num_processes: int | None = None,
        process_id: int | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> "Slice":
        """Returns the group that flags describe, or else the slice of this TPU host.

        Raises:
          UserError: neither says which processes there are.
        """
        given = coordinator, num_processes, process_id
        if None not in given:
            name = re.sub(r"[^\w.-]", "-", coordinator)
            return cls(name, num_processes, process_id, coordinator)
        hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
        number = environment.get("TPU_WORKER_ID", "")
        if any(part is not None for part in given) or not (hosts[0] and number):
            raise UserError(
                "--placement=slice needs TPU_WORKER_ID and TPU_WORKER_HOSTNAMES in the "
                "environment, or --coordinator=HOST:PORT, --num_processes and "
                "--process_id"
            )
        return cls(hosts[0], len(hosts), int(number))

    @property
    def distributed(self) -> tuple[str | None, int | None, int | None]:
        """The arguments of DistributedConfig, for this process."""
        if self.coordinator is None:
            return None, None, None
        return self.coordinator, self.num_processes, self.process_id

    def document(self, number: int) -> str:
        """Returns the name of an announcement."""
        return f"slices/{self.name}/{number:06}.json"

    def num_announced(self, storage: Storage) -> int:
        """Returns the number of announcements, or less if the listing is stale."""
        return len(storage.list(f"slices/{self.name}"))

    def announce(self, storage: Storage, **content: Any) -> None:
        """Writes the next announcement."""
        number = self.num_announced(storage)
        while not storage.create(self.document(number), content):
            number += 1

    def start(
        self,
        configs: TrialConfigs,
        claims: Sequence[Claim],
        storage: Storage,
        devices: DeviceAllocation,
        **options: Any,
    ) -> list[TrialProcess]:
        """Announces and starts a trial, as `start_trials` does."""
        (claim,) = claims
        trial = {"trial": claim.trial, "attempt": claim.index, "point": claim.point}
        self.announce(storage, **trial)
        return start_trials(configs, claims, storage, devices, group=self, **options)


def follow(
    group: Slice,
    configs: TrialConfigs,
    num_trials: int,
    storage: Storage,
    stopped: threading.Event,
    start: Callable[..., list[TrialProcess]] = start_trials,
) -> int:
    """Trains this process's part of each trial that process 0 announces.

    A process that starts late begins with the newest announcement.

    Returns:
      Exit code 0 at the end of the sweep, 75 after a signal.
    """
    number = max(0, group.num_announced(storage) - 1)
    while not stopped.wait(storage.poll_seconds):
        if (announced := storage.read(group.document(number))) is None:
            continue
        number += 1
        if "num_trials" in announced:  # that sweep may have been a smaller one
            if announced["num_trials"] >= num_trials:
                return FINISHED
            continue
        claim = Claim(
            announced["trial"],
            announced["attempt"],
            announced["point"],
            seconds_since_boot(),
        )
        if storage.read(document_name(claim.trial, claim.index, END)) is None:
            everything = DeviceAllocation({})
            (process,) = start(configs, [claim], storage, everything, group=group)
            _attend(process, claim, storage, stopped)
    return STOPPED


def _attend(
    process: TrialProcess, claim: Claim, storage: Storage, stopped: threading.Event
) -> None:
    """Waits for the end of a process, whose lease is that of the attempt."""
    end, renewal_time = document_name(claim.trial, claim.index, END), time.monotonic()
    while process.is_alive:
        time.sleep(POLL_SECONDS)
        if stopped.is_set():
            process.stop()
        elif time.monotonic() - renewal_time > RENEWAL_SECONDS:
            renewal_time = time.monotonic()
            if storage.read(end) is not None:
                process.kill()
            else:
                process.renew(seconds_since_boot())
                process.log.upload()
    process.log.upload()
