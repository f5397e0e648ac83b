"""Meshes with axes (data, fsdp, tensor), and where the numbers of a state lie on one.

Rows of a batch and of a carry are spread over data x fsdp, parameters and optimiser
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

Devices = Sequence[jax.Device] | int | None  # a number: of a plan, none is there
AnyMesh = Mesh | AbstractMesh

ROWS = ("data", "fsdp")
AXES = ("data", "fsdp", "tensor")

RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    # Of what a recurrence steps through. Spread over tensor on a mesh of 2 x 2 x 2,
    # XLA's gradient of the loop is wrong by a percent (jaxlib 0.10.2).
    ("gates", None),
    ("heads", "tensor"),
    ("kv", None),
    ("norm", None),
    ("batch", ROWS),  # for map_over_shards of models/common/devices.py
)


@contextlib.contextmanager
def surroundings(mesh: Mesh) -> Iterator[None]:
    """Of a program's trace: its devices, and what lies on which of their axes."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def on_no_device() -> AbstractContextManager:
    """Of a trace that is to be read: no kernel, which hides its work, is part of it."""
    device = AbstractDevice("none", None, "none")
    empty = AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(empty)


def make_mesh(data: int, fsdp: int, tensor: int, devices: Devices = None) -> AnyMesh:
    """The mesh over all devices; one axis may be -1 and takes what is left."""
    there = devices if isinstance(devices, int) else len(devices or jax.devices())
    sizes = [data, fsdp, tensor]
    named = f"parallel.data={data} x fsdp={fsdp} x tensor={tensor}"
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{named}: sizes are 1 or more, at most one of them -1")
    if -1 in sizes:
        others = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, there // others)
    if math.prod(sizes) != there:
        raise UserError(f"{named} does not make the {there} devices there are")
    types = (AxisType.Auto,) * 3
    if isinstance(devices, int):
        return AbstractMesh(tuple(sizes), AXES, axis_types=types)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)


def places_of(boxed: PyTree, mesh: AnyMesh) -> PyTree:
    """Where each leaf of a state lies; axes that do not divide stay whole.

    Args:
      boxed: shapes with the names of their axes.
    """
    wanted = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    return jax.tree.map(_divisible, nn.meta.unbox(boxed), wanted)


def _divisible(leaf, place: NamedSharding) -> NamedSharding:
    mesh = place.mesh
    axes = [
        axis if axis and leaf.shape[i] % mesh.shape[axis] == 0 else None
        for i, axis in enumerate(place.spec)
    ]
    return NamedSharding(mesh, P(*axes))
