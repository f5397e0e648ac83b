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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from models.attention.dot_product import AttentionInputs, make_dropout_mask
from models.attention.pallas_tpu.kernels import (
    Kernel,
    KernelConstants,
    KernelInputs,
    backward_tiles,
    forward_tiles,
)
from models.attention.pallas_tpu.tiling import Tiling
from models.common.devices import BATCH, HEADS, device_kind, map_over_shards
from models.common.dropout import Keys
from models.common.dtypes import Scalar

BY_HEAD = (BATCH, HEADS)
VMEM_LIMIT_BYTES = 60 << 20  # of a program; the smallest VMEM, of a TPU v5p, has 64 MiB


def flash_attention_tpu(
    inputs: AttentionInputs,
    value: Float[Array, "B H S K"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout_rate: Scalar,
) -> Float[Array, "B H T K"]:
    """Computes `xla_attention`, with the same dropout mask and sums in float32."""
    batch_size, heads, num_queries, width = inputs.query.shape
    tiling = Tiling.from_lengths(num_queries, value.shape[2])
    mask, position_query, relative_keys = tiling.pad_mask(mask), None, None
    if inputs.relative_keys is not None:
        position_query = tiling.pad_queries(inputs.position_query)
        relative_keys = tiling.pad_relative_keys(inputs.relative_keys)
    dropout = make_dropout_mask(dropout_keys, dropout_rate)
    padded = KernelInputs(
        tiling.pad_queries(inputs.query),
        tiling.pad_keys(inputs.key),
        tiling.pad_keys(value),
        position_query,
        relative_keys,
    )
    kernel = Kernel(
        tiling,
        (batch_size, heads),
        width**-0.5,
        is_relative=relative_keys is not None,
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
    output, logsum = _launch(forward_pass, kernel, inputs, constants, ())
    return output, (inputs, constants, output, logsum)


def _backward(kernel, saved, gradient):
    inputs, constants, output, logsum = saved
    saved_outputs = (output, gradient, logsum)
    d_inputs = _launch(backward_pass, kernel, inputs, constants, saved_outputs)
    if (d_relative := d_inputs.relative_keys) is not None:
        d_relative = d_relative.sum(axis=0).astype(inputs.relative_keys.dtype)
    return d_inputs._replace(relative_keys=d_relative), None


_attend.defvjp(_forward, _backward)


def _launch(program, kernel, inputs, constants, outputs):
    """Runs a pass over all examples and heads, each device over its shard."""

    def run(offset, inputs, constants, outputs):
        by_example, by_head, *_ = (jnp.uint32(stride) for stride in kernel.strides)
        example, head = (jnp.asarray(index, jnp.uint32) for index in offset)
        first = example * by_example + head * by_head
        seeds = constants.seeds.at[0, 0].add(first)
        return program(kernel, inputs, constants._replace(seeds=seeds), outputs)

    by_example = (BATCH,) if len(constants.mask) > 1 else (None,)
    names = (
        KernelInputs(*(BY_HEAD,) * 4, (HEADS,)),
        KernelConstants(by_example, by_example, (), ()),
        (BY_HEAD,) * len(outputs),
    )
    return map_over_shards(run, (inputs, constants, outputs), names, kernel.shape)


def forward_pass(
    kernel: Kernel,
    inputs: KernelInputs,
    constants: KernelConstants,
    outputs: tuple[()],
):
    """Computes the outputs of queries and the logarithms of their sums of e^logit."""
    specs = Specs.create(kernel, inputs, constants)
    query = inputs.query
    sums = (*query.shape[:2], 1, query.shape[2])
    return pl.pallas_call(
        functools.partial(forward_tiles, kernel),
        out_shape=(query, jax.ShapeDtypeStruct(sums, jnp.float32)),
        out_specs=(specs.queries, specs.sums),
        in_specs=(*specs.inputs, *specs.constants),
        cost_estimate=kernel.cost(inputs, products=2),
        interpret=kernel.interpret,
        name="attention_forward",
        **specs.options,
    )(*inputs, *constants)


def backward_pass(
    kernel: Kernel, inputs: KernelInputs, constants: KernelConstants, outputs: tuple
):
    """Computes the gradients of all inputs; relative keys have an axis of 1 in front.

    Args:
      outputs: outputs, their gradient, and the logarithms of sums.
    """
    specs = Specs.create(kernel, inputs, constants)
    shapes = [*inputs[:3]]
    out_specs = [specs.queries, specs.keys, specs.keys]
    if kernel.is_relative:
        relative = (1, *inputs.relative_keys.shape)
        shapes += [inputs.position_query, jax.ShapeDtypeStruct(relative, jnp.float32)]
        out_specs += [specs.queries, specs.relative_sums]
    sums = pltpu.VMEM(inputs.key.shape[2:], jnp.float32)
    in_specs = (*specs.inputs, *specs.constants)
    gradients = pl.pallas_call(
        functools.partial(backward_tiles, kernel),
        out_shape=shapes,
        out_specs=out_specs,
        in_specs=(*in_specs, specs.queries, specs.queries, specs.sums),
        cost_estimate=kernel.cost(inputs, products=5),
        interpret=kernel.interpret,
        name="attention_backward",
        scratch_shapes=(sums, sums),
        **specs.options,
    )(*inputs, *constants, *outputs)
    return KernelInputs(*gradients, *(None,) * (5 - len(gradients)))


class Specs(NamedTuple):
    """Part of each array that the program of one row of tiles gets.

    Attributes:
      queries, keys, sums: parts of arrays with an entry for each query or key.
      relative_sums: part of the gradient of relative keys, summed over the batch.
      inputs, constants: parts of all fields of KernelInputs and KernelConstants.
      options: arguments of `pallas_call` that both passes share.
    """

    queries: pl.BlockSpec
    keys: pl.BlockSpec
    sums: pl.BlockSpec
    relative_sums: pl.BlockSpec
    inputs: tuple
    constants: KernelConstants
    options: dict

    @classmethod
    def create(
        cls, kernel: Kernel, inputs: KernelInputs, constants: KernelConstants
    ) -> "Specs":
        """Returns the parts for arrays of these shapes."""
        tiling, (batch_size, heads, _, width) = kernel.tiling, inputs.query.shape
        size = tiling.tile_queries
        columns = tiling.padded_queries + tiling.padded_keys
        queries = pl.BlockSpec((None, None, size, width), lambda h, b, r: (b, h, r, 0))
        keys = pl.BlockSpec(
            (None, None, tiling.padded_keys, width), lambda h, b, r: (b, h, 0, 0)
        )
        relative_keys = pl.BlockSpec((None, columns, width), lambda h, b, r: (h, 0, 0))
        by_example, by_query = (int(size > 1) for size in constants.mask.shape[:2])
        mask = pl.BlockSpec(
            (None, size if by_query else 1, tiling.padded_keys),
            lambda h, b, r: (b * by_example, r * by_query, 0),
        )
        scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
        bounds = pl.BlockSpec(
            (None, 1, constants.bounds.shape[2]),
            lambda h, b, r: (b * by_example, 0, 0),
            memory_space=pltpu.SMEM,
        )
        relative = (queries, relative_keys) if kernel.is_relative else (None, None)
        options = {
            "grid": (heads, batch_size, tiling.query_tiles),
            "compiler_params": pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary", "arbitrary"),
                vmem_limit_bytes=VMEM_LIMIT_BYTES,
            ),
        }
        return cls(
            queries,
            keys,
            pl.BlockSpec((None, None, 1, size), lambda h, b, r: (b, h, 0, r)),
            pl.BlockSpec((None, None, columns, width), lambda h, b, r: (0, h, 0, 0)),
            (queries, keys, keys, *relative),
            KernelConstants(mask, bounds, scalars, scalars),
            options,
        )
