"""Device kinds, and a map over the shards of a batch and its heads.

The compiler that partitions a program over a mesh cannot look into a kernel: it would
gather the whole batch on each device. The logical-axis rules in force
(`training/parallel/mesh.py`) name the mesh axes of batch and heads.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

BATCH, HEADS = "batch", "heads"  # logical axes whose entries are independent
TPUS_BEFORE_V5 = ("TPU v2", "TPU v3", "TPU v4")
AMD_PREFIXES = ("AMD", "gfx")  # of JAX's platform "gpu" too


def device_kind() -> str:
    """Returns the kind of device that the current program is traced for.

    One of "cpu", "gpu" (NVIDIA), "amd gpu", "tpu" and "old tpu", or JAX's platform.
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
    """Calls `function(offset, *inputs)` on each device with its shard of the inputs.

    Args:
      function: its offset is the first example and the first head of the shard; its
        results have the axes BATCH and HEADS first.
      names: logical names of the first axes of each input, or of all arrays in it.
      shape: sizes of BATCH and HEADS.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or any(kind is not AxisType.Auto for kind in mesh.axis_types):
        return function((0, 0), *inputs)
    axes = {
        name: _mesh_axes(name, size, mesh)
        for name, size in zip((BATCH, HEADS), shape, strict=True)
    }

    def spec(names):
        return P(*(axes.get(name) for name in names))

    def call(*inputs):
        offset = [
            jax.lax.axis_index(axes[name]) * (size // _num_shards(axes[name], mesh))
            if axes[name]
            else 0
            for name, size in zip((BATCH, HEADS), shape, strict=True)
        ]
        return function(offset, *inputs)

    return jax.shard_map(
        call,
        in_specs=jax.tree.map(spec, names, is_leaf=_is_names),
        out_specs=spec((BATCH, HEADS)),
        check_vma=False,
    )(*inputs)


def _mesh_axes(name, size, mesh):
    """Returns the mesh axes of a logical axis; None if they do not divide its size."""
    (axes,) = nn.logical_to_mesh_axes((name,))
    return axes if axes and size % _num_shards(axes, mesh) == 0 else None


def _num_shards(axes, mesh):
    names = (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh.shape[name] for name in names)


def _is_names(value):
    return isinstance(value, tuple) and all(
        name is None or isinstance(name, str) for name in value
    )
