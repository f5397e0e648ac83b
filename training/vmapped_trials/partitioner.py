"""Members of a population, dealt to the devices: each trains on one of them.

No device needs anything of another, so K members on n devices are n programs that
run side by side; where n does not divide K, as many devices are used as do.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from utils.errors import UserError

MEMBER = "member"


class VmappedPartitioner:
    """Spreads what has an axis [K] over devices; batches are on all of them."""

    def __init__(self, count: int, devices: Sequence[jax.Device] | None = None):
        """Args: count: K. devices: None: all there are.

        Raises UserError in a run of several processes.
        """
        if jax.process_count() > 1:
            raise UserError(
                f"a population trains in one process, and these are "
                f"{jax.process_count()}: start one a machine, as a sweep does"
            )
        self.count = count
        there = list(devices or jax.devices())
        used = np.asarray(there[: math.gcd(count, len(there))])
        self.mesh = Mesh(used, (MEMBER,), axis_types=(AxisType.Auto,))
        self.spread = NamedSharding(self.mesh, P(MEMBER))
        self.replicated = NamedSharding(self.mesh, P())
        self._slice = jax.jit(
            lambda tree, k: jax.tree.map(lambda leaf: leaf[k], tree),
            out_shardings=self.replicated,
        )

    @property
    def first(self) -> jax.Device:
        """The device on which a member alone is put."""
        return self.mesh.devices[0]

    def init(self, make: Callable[..., PyTree], *inputs: PyTree) -> PyTree:
        """What `make` gives of each member's inputs, where it will live."""
        made = self._dealt(jax.vmap(make), len(inputs), 0)
        return jax.jit(made, out_shardings=self.spread)(*inputs)

    def compile(self, step: Callable) -> Callable:
        """The step of `vmapped_step`; it consumes state and carry."""
        dealt = self._dealt(step, 4, 1)
        return jax.jit(dealt, donate_argnums=(2, 3), out_shardings=self.spread)

    def map(self, function: Callable) -> Callable:
        """A function of things with an axis [K], compiled; it consumes the first."""
        return jax.jit(function, donate_argnums=0, out_shardings=self.spread)

    def _dealt(self, function: Callable, spread: int, shared: int) -> Callable:
        """Each device calls it with its own members of the first inputs."""
        if self.mesh.size == 1:
            return function
        inputs = (P(MEMBER),) * spread + (P(),) * shared
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=inputs,
            out_specs=P(MEMBER),
            check_vma=False,
        )

    def put(self, tree: PyTree) -> PyTree:
        """Leaves [K, ...] where they live."""
        return jax.device_put(tree, self.spread)

    def put_batch(self, batch: PyTree) -> PyTree:
        """A batch on all devices."""
        return jax.device_put(batch, self.replicated)

    def member(self, tree: PyTree, k: int) -> PyTree:
        """One member's part, on the first device."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), self._slice(tree, k))

    def joined(self, members: Sequence[PyTree]) -> PyTree:
        """What `member` took apart; it passes through the host."""
        whole = [jax.device_get(member) for member in members]
        return self.put(jax.tree.map(lambda *leaves: np.stack(leaves), *whole))
