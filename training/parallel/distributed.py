"""Runs of several processes: initialisation, barriers, and loss of a process."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import multihost

from utils.errors import UserError
from utils.ranges import check_range

HEARTBEAT = 10  # seconds without a heartbeat after which a process counts as dead
DAY = 24 * 60 * 60 * 1000  # milliseconds; a corpus may take hours to prepare
LOST = 2  # exit code of an error of the environment


class DistributedConfig(NamedTuple):
    """Address of the coordinator and rank of this process; all None: automatic."""

    coordinator: str | None = None  # HOST:PORT of process 0
    num_processes: int | None = None
    process_id: int | None = None  # from 0


def initialize(config: DistributedConfig) -> None:
    """Initialises `jax.distributed`, before any device is used.

    Without an address, processes find each other on TPU pods, under Slurm and on
    Kubernetes; elsewhere there is one process.

    Raises:
      UserError: an incomplete address or a rank out of range.
    """
    # The training loop handles preemption signals itself.
    jax.config.update("jax_enable_preemption_service", False)
    if any(part is None for part in config) and config != DistributedConfig():
        raise UserError(
            "set --coordinator=HOST:PORT, --num_processes and --process_id, or none"
        )
    address, count, number = config
    if address is not None:
        port = address.rpartition(":")[2]
        if not re.fullmatch("[0-9]{1,5}", port) or ":" not in address:
            raise UserError(f"--coordinator={address} must be HOST:PORT of process 0")
        check_range("--num_processes", count, 1)
        check_range("--process_id", number, 0, count - 1)
    try:
        jax.distributed.initialize(*config, heartbeat_timeout_seconds=HEARTBEAT)
    except ValueError:  # no cluster was found: there is one process
        if config != DistributedConfig():
            raise


def is_primary() -> bool:
    """Returns whether this process writes logs and files of the run directory."""
    return jax.process_index() == 0


@contextmanager
def primary_first(name: str) -> Iterator[None]:
    """Runs the body in the primary process first, then in all others."""

    def barrier(key):
        multihost.get_barrier_sync_fn()(key=key, timeout_ms=DAY)

    if not is_primary():
        barrier(name)
    try:
        yield
    finally:
        if is_primary():
            barrier(name)
    barrier(f"{name}, all")


@contextmanager
def exit_on_peer_loss() -> Iterator[None]:
    """Exits with one line when another process of the run was lost.

    It exits at once, since the normal exit waits for the lost process.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost "
            f"another process ({str(error).splitlines()[0][:200]}); start all "
            "processes again to resume from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LOST)


class AnyProcessFlag:
    """Logical or of a flag over all processes, with a delay of one call.

    A call returns whether any process passed True in the call before, so that nothing
    waits for a result in flight. All processes must call it equally often.
    """

    def __init__(self):
        mesh = Mesh(np.asarray(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
        self._sharding = NamedSharding(mesh, P("all"))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
        self._previous: jax.Array | None = None

    def __call__(self, flag: bool) -> bool:
        """Passes the flag of this process; returns the result of the call before."""
        flags = jax.make_array_from_callback(
            (self._sharding.mesh.size,), self._sharding, lambda _: np.full(1, flag)
        )
        result, self._previous = self._previous, self._any(flags)
        return result is not None and bool(result)
