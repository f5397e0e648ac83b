"""Device meshes with axes (data, fsdp, tensor) and shardings of parameters.

Rows of a batch and of a carry are sharded over data x fsdp, parameters and optimiser
state by the names of their logical axes. One device is the mesh 1 x 1 x 1.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import flax.linen as nn
import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from utils.errors import UserError

Devices = Sequence[jax.Device] | int | None  # a number: devices of a plan
AnyMesh = Mesh | AbstractMesh

ROWS = ("data", "fsdp")
AXES = ("data", "fsdp", "tensor")

RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    # Gates of a recurrent cell. Sharded over tensor on a mesh of 2 x 2 x 2, the
    # gradient of the scan is wrong by a percent (jaxlib 0.10.2).
    ("gates", None),
    ("heads", "tensor"),
    ("kv", None),
    ("norm", None),
    ("batch", ROWS),  # for models/attention/pallas_tpu/attention.py
)


@contextlib.contextmanager
def mesh_context(mesh: Mesh) -> Iterator[None]:
    """Sets the mesh and the rules of logical axes while a program is traced."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def abstract_mesh_context() -> AbstractContextManager:
    """Returns a context without devices, in which no device kernel is selected."""
    device = AbstractDevice("none", None, "none")
    empty = AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(empty)


def make_mesh(data: int, fsdp: int, tensor: int, devices: Devices = None) -> AnyMesh:
    """Returns the mesh; one axis may be -1 and takes the remaining devices.

    Args:
      data: size of the axis over batch rows.
      fsdp: size of the axis over batch rows and parameters.
      tensor: size of the axis over heads, feed-forward units and vocabulary.
      devices: devices, or their number for an abstract mesh; None: all.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    num_devices = devices if isinstance(devices, int) else len(devices or jax.devices())
    sizes = [data, fsdp, tensor]
    named = f"parallel.data={data} x fsdp={fsdp} x tensor={tensor}"
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{named}: sizes must be at least 1, or -1 for one of them")
    if -1 in sizes:
        others = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, num_devices // others)
    if math.prod(sizes) != num_devices:
        raise UserError(f"{named} does not multiply to {num_devices} devices")
    types = (AxisType.Auto,) * 3
    if isinstance(devices, int):
        return AbstractMesh(tuple(sizes), AXES, axis_types=types)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)


def param_shardings(boxed: PyTree, mesh: AnyMesh) -> PyTree:
    """Returns the sharding of each leaf; axes that do not divide are replicated.

    Args:
      boxed: shapes with the names of their logical axes.
    """

    def divisible(leaf, sharding):
        axes = [
            axis if axis and leaf.shape[i] % mesh.shape[axis] == 0 else None
            for i, axis in enumerate(sharding.spec)
        ]
        return NamedSharding(mesh, P(*axes))

    wanted = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    return jax.tree.map(divisible, nn.meta.unbox(boxed), wanted)


def fully_replicated(tree: PyTree) -> PyTree:
    """Returns arrays that this process can use without the other processes.

    In one process nothing changes. In several each leaf is replicated to all devices
    and the copy of this process's first device is returned.
    """
    if jax.process_count() == 1:
        return tree

    def replicate(leaf):
        sharding = NamedSharding(leaf.sharding.mesh, P())
        whole = jax.jit(lambda x: x, out_shardings=sharding)(leaf)
        return whole.addressable_data(0)

    return jax.tree.map(replicate, tree)
