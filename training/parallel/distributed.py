"""Several processes that are one run: how they meet, wait, and end together."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
from orbax.checkpoint import multihost

from utils.errors import UserError

HEARTBEAT = 10  # seconds without a sign of life after which a process counts as dead
DAY = 24 * 60 * 60 * 1000  # milliseconds; a corpus may take hours to prepare
LOST = 2  # exit code: the environment's fault, as of a full disk


class Address(NamedTuple):
    """Where processes meet, and which one this is; all None: found by itself.

    Attributes:
      coordinator: HOST:PORT of process 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def join(address: Address) -> None:
    """Meets the other processes, before any device is used.

    Without an address they are found on TPU pods, under Slurm and Kubernetes; where
    there is nothing of the kind, this process is alone. Raises UserError for half an
    address.
    """
    # Ours are the handlers of signals, and what they ask for is agreed upon.
    jax.config.update("jax_enable_preemption_service", False)
    if any(part is None for part in address) and address != Address():
        raise UserError(
            "--coordinator=HOST:PORT, --num_processes and --process_id belong together"
        )
    number, count = address.process_id, address.num_processes
    if number is not None and not 0 <= number < count:
        raise UserError(f"--process_id={number}: it must be in 0 to {count - 1}")
    try:
        jax.distributed.initialize(*address, heartbeat_timeout_seconds=HEARTBEAT)
    except ValueError:
        if address != Address():
            raise
        # Nothing here says that there are others.


def is_first() -> bool:
    """Whether this is the process that writes logs and the run directory's files."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there are no others."""
    return jax.process_count() == 1


def wait_for_all(name: str) -> None:
    """Until all processes are here."""
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=DAY)


@contextmanager
def first_before_others(name: str) -> Iterator[None]:
    """The body is run by the first process, then by all others; then all go on."""
    if not is_first():
        wait_for_all(name)
    try:
        yield
    finally:
        if is_first():
            wait_for_all(name)
    wait_for_all(f"{name}, all")


@contextmanager
def losses_explained() -> Iterator[None]:
    """Ends this process in one line when another one of the run was lost.

    At once: the way out of an interpreter waits for the one that is not there.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if is_alone():
            raise
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost "
            f"another ({str(error).splitlines()[0][:200]}): start all of them again, "
            "and they go on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LOST)
