"""Devices: the only file that names a mesh or a sharding.

A mesh has axes (data, fsdp, tensor). Rows of a batch and of a carry are spread
over data x fsdp, parameters and optimiser state by the names of their logical
axes. One device is the mesh 1 x 1 x 1, so there is one path for all.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from ml_collections import ConfigDict

from errors import UserError
from training.step import Step

ROWS = ("data", "fsdp")

RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("kv", None),
    ("norm", None),
)


class Partitioner:
    """Spreads state, carry and batches over the devices of a mesh."""

    def __init__(self, cfg: ConfigDict, *, parts: int = 1):
        """Args: cfg: the experiment's `cfg.parallel`. parts: of a batch, in a step.

        Raises UserError where the axes do not multiply to the devices there are.
        """
        self.mesh = make_mesh(cfg.data, cfg.fsdp, cfg.tensor)
        self.row_parts = parts * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self.rows = NamedSharding(self.mesh, P(ROWS))
        self.replicated = NamedSharding(self.mesh, P())

    def init(self, make: Callable[[], PyTree]) -> PyTree:
        """Makes a state where it will live, no device holding more than its part."""
        shardings = self.shardings(make)
        with jax.set_mesh(self.mesh):
            return jax.jit(lambda: nn.meta.unbox(make()), out_shardings=shardings)()

    def shardings(self, make: Callable[[], PyTree]) -> PyTree:
        """Where each leaf of the state lies; axes that do not divide stay whole."""
        boxed = jax.eval_shape(make)
        wanted = nn.logical_to_mesh_sharding(
            nn.get_partition_spec(boxed), self.mesh, RULES
        )
        return jax.tree.map(self._divisible, nn.meta.unbox(boxed), wanted)

    def _divisible(self, leaf, sharding: NamedSharding) -> NamedSharding:
        axes = [
            axis if axis and leaf.shape[i] % self.mesh.shape[axis] == 0 else None
            for i, axis in enumerate(sharding.spec)
        ]
        return NamedSharding(self.mesh, P(*axes))

    def compile(self, step: Step, state: PyTree, carry: PyTree, *, shapes: int) -> Step:
        """The step under jit; it consumes the state and the carry it is given.

        What comes out lies where `state` and `carry` lie, so that a step's
        results fit the next without compiling again.

        Args:
          shapes: of batches, and so the number of programs. More of them are a
            mistake of ours, which stops a run rather than make it slow.
        """
        places = jax.tree.map(lambda leaf: leaf.sharding, (state, carry))
        jitted = jax.jit(
            step, donate_argnums=(0, 1), out_shardings=(*places, self.replicated)
        )

        def call(state, carry, batch):
            with jax.set_mesh(self.mesh):
                found = jitted(state, carry, batch)
            if jitted._cache_size() > shapes:
                raise RuntimeError(f"the step was compiled more than {shapes} times")
            return found

        call.cache_size = jitted._cache_size
        return call

    def padded(self, rows: int) -> int:
        """The next number of rows that the mesh and the parts divide."""
        return -(-rows // self.row_parts) * self.row_parts

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """A batch on the devices; rows of zeros, so of weight 0, fill it up."""
        rows = len(next(iter(batch.values())))
        spare = self.padded(rows) - rows

        def fill(leaf):
            return np.pad(leaf, [(0, spare)] + [(0, 0)] * (leaf.ndim - 1))

        return jax.device_put({k: fill(v) for k, v in batch.items()}, self.rows)

    def put_carry(self, carry: PyTree) -> PyTree:
        """A carry of padded rows on the devices, each leaf a buffer of its own."""

        def place(leaf):
            return self.rows if np.ndim(leaf) else self.replicated

        def copy(leaf, sharding):
            return jax.jit(jnp.copy, out_shardings=sharding)(leaf)

        return jax.tree.map(copy, carry, jax.tree.map(place, carry))


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """The mesh over all devices; one axis may be -1 and takes what is left."""
    devices = jax.devices()
    sizes = [data, fsdp, tensor]
    named = f"parallel.data={data} x fsdp={fsdp} x tensor={tensor}"
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{named}: sizes are 1 or more, at most one of them -1")
    if -1 in sizes:
        others = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, len(devices) // others)
    if math.prod(sizes) != len(devices):
        raise UserError(f"{named} does not make the {len(devices)} devices there are")
    names = ("data", "fsdp", "tensor")
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * 3)
