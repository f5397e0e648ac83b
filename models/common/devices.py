"""Devices, as far as models know of them: of which kind, and who computes what.

A compiler that spreads a program over a mesh cannot look into a kernel: it would bring
all rows to each device. Which axes of the mesh rows and heads lie on is told by the
rules of logical axes in force (`training/parallel/mesh.py`).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

ROWS, HEADS = "rows", "heads"  # of which no result of one depends on another
TPUS_BEFORE_V5 = ("TPU v2", "TPU v3", "TPU v4")
AMD_PREFIXES = ("AMD", "gfx")  # JAX's platform is "gpu" with them too


def device_kind() -> str:
    """What a program is traced for.

    One of "cpu", "gpu" (NVIDIA's), "amd gpu", "tpu" and "old tpu", or another.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    if device.device_kind.startswith(TPUS_BEFORE_V5):
        return "old tpu"
    if device.device_kind.startswith(AMD_PREFIXES):
        return "amd gpu"
    return {"cuda": "gpu"}.get(device.platform, device.platform)


def map_over_shards(
    function: Callable, inputs: tuple, names: tuple, shape: tuple[int, int]
) -> PyTree:
    """The results of `function(corner, *inputs)`, a device's own part each.

    Args:
      function: corner is the first row and the first head of what it is given.
      names: of the first axes of all inputs, or of all arrays in them; those of
        results are ROWS and HEADS.
      shape: how many rows and heads there are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or any(kind is not AxisType.Auto for kind in mesh.axis_types):
        return function((0, 0), *inputs)
    axes = {
        name: _axes_of(name, size, mesh)
        for name, size in zip((ROWS, HEADS), shape, strict=True)
    }

    def place(names):
        return P(*(axes.get(name) for name in names))

    def local(*inputs):
        corner = [
            jax.lax.axis_index(axes[name]) * (size // _parts(axes[name], mesh))
            if axes[name]
            else 0
            for name, size in zip((ROWS, HEADS), shape, strict=True)
        ]
        return function(corner, *inputs)

    spread = jax.shard_map(
        local,
        in_specs=jax.tree.map(place, names, is_leaf=_is_names),
        out_specs=place((ROWS, HEADS)),
        check_vma=False,
    )
    return spread(*inputs)


def _axes_of(name, size, mesh):
    """Of the mesh, on which so many lie; None: on none, or they do not divide."""
    (axes,) = nn.logical_to_mesh_axes((name,))
    return axes if axes and size % _parts(axes, mesh) == 0 else None


def _parts(axes, mesh):
    names = (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh.shape[name] for name in names)


def _is_names(value):
    return isinstance(value, tuple) and all(
        one is None or isinstance(one, str) for one in value
    )
