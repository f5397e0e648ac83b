"""Fused attention for TPUs that computes weights tile by tile and stores none.

As in FlashAttention (Dao et al. 2022, algorithms 1 and 4), a softmax is accumulated
over tiles of keys, and the backward pass recomputes its weights from the logarithm of
their sum. The logits of relative positions (Dai et al. 2019) are computed for the
positions of a tile alone. Dropout masks are those of `common/dropout.py`, which depend
on indices alone.

A TPU processes the rows of tiles of a head in order, so the gradients of keys, values
and relative keys are summed in VMEM, which has to hold all keys of a head. The kernels
are in `kernels.py`; here is which part of each array they get. On other devices they
are interpreted: correct, and slow.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from models.attention.dispatch import device_kind
from models.attention.dot_product import AttentionInputs
from models.attention.pallas_tpu.kernels import (
    Kernel,
    KernelConstants,
    KernelInputs,
    Tiling,
    backward_tiles,
    forward_tiles,
)
from models.common.dropout import DropoutMask

VMEM_LIMIT_BYTES = 60 << 20  # of a program; the smallest VMEM, of a TPU v5p, has 64 MiB


def flash_attention_tpu(
    inputs: AttentionInputs,
    mask: Bool[Array, "#B 1 #T S"],
    dropout: DropoutMask | None = None,
) -> Float[Array, "B H T K"]:
    """Computes `xla_attention`, with the same dropout mask and sums in float32."""
    batch_size, heads, num_queries, width = inputs.query.shape
    tiling = Tiling.from_lengths(num_queries, inputs.key.shape[2])
    is_relative, mask = inputs.relative_keys is not None, tiling.pad_mask(mask)
    padded = KernelInputs(
        tiling.pad_queries(inputs.query),
        tiling.pad_keys(inputs.key),
        tiling.pad_keys(inputs.value),
        tiling.pad_queries(inputs.position_query) if is_relative else None,
        tiling.pad_relative_keys(inputs.relative_keys) if is_relative else None,
    )
    kernel = Kernel(
        tiling,
        (batch_size, heads),
        width**-0.5,
        is_relative,
        has_dropout=dropout is not None,
        interpret=device_kind() != "tpu",
    )
    seeds, factor = jnp.zeros((1, 3), jnp.uint32), jnp.ones((1, 1))
    if dropout is not None:
        seeds = jnp.append(dropout.keys, dropout.threshold)[None]
        factor = jnp.full((1, 1), dropout.factor, jnp.float32)
    bounds = tiling.key_tile_bounds(mask)[:, None]
    constants = KernelConstants(mask[:, 0].astype(jnp.int8), bounds, seeds, factor)
    return _attend(padded, constants, kernel)[:, :, tiling.query_padding :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend(inputs: KernelInputs, constants: KernelConstants, kernel: Kernel):
    return _forward(inputs, constants, kernel)[0]


def _forward(inputs, constants, kernel):
    output, logsum = _map_over_shards(kernel, inputs, constants, ())
    return output, (inputs, constants, output, logsum)


def _backward(kernel, saved, gradient):
    inputs, constants, output, logsum = saved
    outputs = (output, gradient, logsum)
    d_inputs = _map_over_shards(kernel, inputs, constants, outputs)
    d_inputs = KernelInputs(*d_inputs, *(None,) * (5 - len(d_inputs)))
    if (d_relative := d_inputs.relative_keys) is not None:
        d_relative = d_relative.sum(axis=0).astype(inputs.relative_keys.dtype)
    return d_inputs._replace(relative_keys=d_relative), None


_attend.defvjp(_forward, _backward)


def _map_over_shards(kernel, inputs, constants, outputs):
    """Runs a pass over all examples and heads, each device over its shard.

    The compiler that partitions a program over a mesh cannot look into a kernel: it
    would gather the whole batch on each device. The logical-axis rules in force
    (`training/parallel/mesh.py`) name the mesh axes of "batch" and "heads".
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or any(kind is not AxisType.Auto for kind in mesh.axis_types):
        return _run_pass(kernel, inputs, constants, outputs)
    names = zip(("batch", "heads"), kernel.shape, strict=True)
    axes = [_mesh_axes(name, size, mesh) for name, size in names]

    def run(inputs, constants, outputs):
        first = jnp.uint32(0)
        for i, stride in enumerate(kernel.strides[:2]):
            if axes[i]:
                index = jax.lax.axis_index(axes[i]) * inputs.query.shape[i]
                first += index.astype(jnp.uint32) * jnp.uint32(stride)
        seeds = constants.seeds.at[0, 0].add(first)
        return _run_pass(kernel, inputs, constants._replace(seeds=seeds), outputs)

    by_head, heads = P(*axes), P(axes[1])
    by_example = P(axes[0] if len(constants.mask) > 1 else None)
    specs = (
        KernelInputs(*(by_head,) * 4, heads),
        KernelConstants(by_example, by_example, P(), P()),
        (by_head,) * len(outputs),
    )
    mapped = jax.shard_map(run, in_specs=specs, out_specs=by_head, check_vma=False)
    return mapped(inputs, constants, outputs)


def _mesh_axes(name, size, mesh):
    """Returns the mesh axes of a logical axis; None if they do not divide its size."""
    (axes,) = nn.logical_to_mesh_axes((name,))
    names = (axes,) if isinstance(axes, str) else axes or ()
    return axes if size % math.prod(mesh.shape[name] for name in names) == 0 else None


def _run_pass(
    kernel: Kernel, inputs: KernelInputs, constants: KernelConstants, outputs: tuple
) -> Sequence[Array]:
    """Runs the forward pass or, with its `outputs`, the backward pass.

    Args:
      outputs: outputs, their gradient, and the logarithms of sums; () to compute the
        outputs and the logarithms of the queries' sums of e^logit.

    The backward pass returns the gradients of all inputs; relative keys have an axis
    of 1 in front.
    """
    tiling, (batch_size, heads, _, width) = kernel.tiling, inputs.query.shape
    size, num_keys = tiling.tile_queries, tiling.padded_keys
    columns = tiling.padded_queries + num_keys
    by_example, by_query = (int(size > 1) for size in constants.mask.shape[:2])
    # The part of each array that the program of one row of tiles gets.
    queries = pl.BlockSpec((None, None, size, width), lambda h, b, r: (b, h, r, 0))
    keys = pl.BlockSpec((None, None, num_keys, width), lambda h, b, r: (b, h, 0, 0))
    logsums = pl.BlockSpec((None, None, 1, size), lambda h, b, r: (b, h, 0, r))
    relative_keys = pl.BlockSpec((None, columns, width), lambda h, b, r: (h, 0, 0))
    mask = pl.BlockSpec(
        (None, size if by_query else 1, num_keys),
        lambda h, b, r: (b * by_example, r * by_query, 0),
    )
    bounds = pl.BlockSpec(
        (None, 1, constants.bounds.shape[2]),
        lambda h, b, r: (b * by_example, 0, 0),
        memory_space=pltpu.SMEM,
    )
    scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
    relative = (queries, relative_keys) if kernel.is_relative else (None, None)
    in_specs = [queries, keys, keys, *relative, mask, bounds, scalars, scalars]
    if outputs:
        tiles, name, products = backward_tiles, "attention_backward", 5
        in_specs += [queries, queries, logsums]
        shapes, out_specs = [*inputs[:3]], [queries, keys, keys]
        if kernel.is_relative:
            shape = (1, *inputs.relative_keys.shape)
            shapes += [inputs.position_query, jax.ShapeDtypeStruct(shape, jnp.float32)]
            block = (None, None, columns, width)
            out_specs += [queries, pl.BlockSpec(block, lambda h, b, r: (0, h, 0, 0))]
        scratch = [pltpu.VMEM(inputs.key.shape[2:], jnp.float32)] * 2
    else:
        tiles, name, products = forward_tiles, "attention_forward", 2
        shape = (batch_size, heads, 1, tiling.padded_queries)
        shapes = [inputs.query, jax.ShapeDtypeStruct(shape, jnp.float32)]
        out_specs, scratch = [queries, logsums], []
    return pl.pallas_call(
        functools.partial(tiles, kernel),
        out_shape=shapes,
        in_specs=in_specs,
        out_specs=out_specs,
        scratch_shapes=scratch,
        grid=(heads, batch_size, tiling.query_tiles),
        cost_estimate=kernel.cost(inputs, products),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=VMEM_LIMIT_BYTES,
        ),
        interpret=kernel.interpret,
        name=name,
    )(*inputs, *constants, *outputs)
