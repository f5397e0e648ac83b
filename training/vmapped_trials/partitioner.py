"""Placement of K trials on devices; each trial trains on one device.

Trials need nothing of each other, so K trials on n devices are n programs side by
side. Where n does not divide K, gcd(n, K) devices are used.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from utils.errors import UserError

TRIAL = "trial"  # name of the mesh axis


class VmappedPartitioner:
    """Shards an axis [K] over devices; batches are replicated."""

    def __init__(self, count: int, devices: Sequence[jax.Device] | None = None):
        """Makes the mesh for `count` trials; `devices` None: all of this process.

        Raises:
          UserError: there are several processes.
        """
        if jax.process_count() > 1:
            raise UserError(
                f"trials that train as one program need one process, and these are "
                f"{jax.process_count()}: start one sweep worker on each machine"
            )
        self.count = count
        available = list(devices or jax.devices())
        used = np.asarray(available[: math.gcd(count, len(available))])
        self.mesh = Mesh(used, (TRIAL,), axis_types=(AxisType.Auto,))
        self.sharded = NamedSharding(self.mesh, P(TRIAL))
        self.replicated = NamedSharding(self.mesh, P())
        self._slice = jax.jit(
            lambda tree, k: jax.tree.map(lambda leaf: leaf[k], tree),
            out_shardings=self.replicated,
        )

    @property
    def first_device(self) -> jax.Device:
        """Device on which a single trial is put."""
        return self.mesh.devices[0]

    def init(self, make: Callable[..., PyTree], *inputs: PyTree) -> PyTree:
        """Returns `make` of each trial's inputs, made on the trial's device.

        Trials are made one after the other. jaxlib divides a batch of QR decompositions
        (orthogonal matrices) among the CPU threads that wait for it, so that two
        batches at once can wait for each other forever.
        """

        def make_all(*parts):
            return jax.lax.map(lambda part: make(*part), parts)

        make_all = self._shard_map(make_all, len(inputs), 0)
        return jax.jit(make_all, out_shardings=self.sharded)(*inputs)

    def compile(self, step: Callable) -> Callable:
        """Compiles the step of `vmapped_step`, which donates state and carry."""
        step = self._shard_map(step, 4, 1)
        return jax.jit(step, donate_argnums=(2, 3), out_shardings=self.sharded)

    def compile_observer(self, observe: Callable) -> Callable:
        """Compiles a function of the step's inputs, with results [K, ...]."""
        return jax.jit(self._shard_map(observe, 3, 1), out_shardings=self.sharded)

    def map(self, function: Callable) -> Callable:
        """Compiles a function of arrays [K, ...] that donates its first argument."""
        return jax.jit(function, donate_argnums=0, out_shardings=self.sharded)

    def _shard_map(
        self, function: Callable, num_sharded: int, num_replicated: int
    ) -> Callable:
        """Calls a function on each device with its own trials."""
        if self.mesh.size == 1:
            return function
        in_specs = (P(TRIAL),) * num_sharded + (P(),) * num_replicated
        specs = {"in_specs": in_specs, "out_specs": P(TRIAL)}
        return jax.shard_map(function, mesh=self.mesh, check_vma=False, **specs)

    def put(self, tree: PyTree) -> PyTree:
        """Shards leaves [K, ...] over the devices."""
        return jax.device_put(tree, self.sharded)

    def put_batch(self, batch: PyTree) -> PyTree:
        """Replicates a batch on all devices."""
        return jax.device_put(batch, self.replicated)

    def trial(self, tree: PyTree, k: int) -> PyTree:
        """Returns trial k of leaves [K, ...], on the first device."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), self._slice(tree, k))

    def stack(self, trials: Sequence[PyTree]) -> PyTree:
        """Inverts `trial`, by way of the host."""
        on_host = [jax.device_get(trial) for trial in trials]
        return self.put(jax.tree.map(lambda *leaves: np.stack(leaves), *on_host))
