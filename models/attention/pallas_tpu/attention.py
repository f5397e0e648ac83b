"""Attention as a TPU kernel: weights are made where they are used, tile by tile.

As in FlashAttention (Dao et al. 2022, algorithms 1 and 4) a softmax is built up over
tiles of keys, and the backward pass makes its weights again from the logarithm of their
sum. What Dai et al. (2019) add, scores by distance, is made for the distances of a tile
alone. Dropout's masks are those of `common/dropout.py`: they depend on places alone.

A TPU takes the rows of tiles of a head one after another, so what they give to keys,
values and distances adds up in its fast memory, which has to hold all keys of a head.
What it does with a row is in `kernels.py`; here is which parts of which
arrays it is given. Called for other devices the kernel is interpreted: right, and slow.
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
from models.common.devices import (
    BATCH,
    HEADS,
    device_kind,
    map_over_shards,
)
from models.common.dropout import Keys
from models.common.dtypes import Scalar

BY_HEAD = (BATCH, HEADS)
VMEM_LIMIT_BYTES = (
    60 << 20
)  # bytes that a program may take; a TPU v5p has the least, 64


def flash_attention_tpu(
    inputs: AttentionInputs,
    values: Float[Array, "B H S Dh"],
    mask: Bool[Array, "#B 1 #T S"],
    dropout_keys: Keys | None,
    dropout: Scalar,
) -> Float[Array, "B H T Dh"]:
    """What `attended` finds, with the same dropout; sums are rounded to float32."""
    rows, heads, num_queries, width = inputs.query.shape
    tiling = Tiling.of(num_queries, values.shape[2])
    mask, position, distances = tiling.with_mask(mask), None, None
    if inputs.relative_keys is not None:
        position = tiling.with_queries(inputs.position_query)
        distances = tiling.with_distances(inputs.relative_keys)
    draw = make_dropout_mask(dropout_keys, dropout)
    kernel_inputs = KernelInputs(
        tiling.with_queries(inputs.query),
        tiling.with_keys(inputs.key),
        tiling.with_keys(values),
        position,
        distances,
    )
    kernel = Kernel(
        tiling,
        (rows, heads),
        width**-0.5,
        relative=distances is not None,
        drops=draw is not None,
        interpret=device_kind() != "tpu",
    )
    seeds, factor = jnp.zeros((1, 3), jnp.uint32), jnp.ones((1, 1))
    if draw is not None:
        seeds = jnp.append(draw.keys, draw.threshold)[None]
        factor = jnp.full((1, 1), draw.factor, jnp.float32)
    seen = mask[:, 0].astype(jnp.int8)
    given = KernelConstants(seen, tiling.bounds(mask)[:, None], seeds, factor)
    return _attended(kernel_inputs, given, kernel)[:, :, tiling.spare :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attended(inputs: KernelInputs, given: KernelConstants, kernel: Kernel):
    return _forward(inputs, given, kernel)[0]


def _forward(inputs, given, kernel):
    found, logsum = _launch(forward_pass, kernel, inputs, given, ())
    return found, (inputs, given, found, logsum)


def _backward(kernel, saved, gradient):
    inputs, given, found, logsum = saved
    more = (found, gradient, logsum)
    by_input = _launch(backward_pass, kernel, inputs, given, more)
    content, keys, values, position, distances = by_input
    if distances is not None:
        distances = distances.sum(axis=0).astype(inputs.distances.dtype)
    return KernelInputs(content, keys, values, position, distances), None


_attended.defvjp(_forward, _backward)


def _launch(program, kernel, inputs, given, more):
    """A pass over all rows and heads, each device over its own.

    Args:
      program: (kernel, inputs, given, more) -> results by row and head.
    """

    def run(corner, inputs, given, more):
        by_row, by_head, *_ = (jnp.uint32(stride) for stride in kernel.strides)
        row, head = (jnp.asarray(place, jnp.uint32) for place in corner)
        seeds = given.seeds.at[0, 0].add(row * by_row + head * by_head)
        return program(kernel, inputs, given._replace(seeds=seeds), more)

    of_rows = (BATCH,) if len(given.mask) > 1 else (None,)
    names = (
        KernelInputs(*(BY_HEAD,) * 4, (HEADS,)),
        KernelConstants(of_rows, of_rows, (), ()),
        (BY_HEAD,) * len(more),
    )
    return map_over_shards(run, (inputs, given, more), names, kernel.shape)


def forward_pass(
    kernel: Kernel, inputs: KernelInputs, given: KernelConstants, more: tuple[()]
):
    """What queries find, and the logarithm of sums of e^score."""
    specs = Specs.of(kernel, inputs, given)
    content = inputs.content
    sums = (*content.shape[:2], 1, content.shape[2])
    return pl.pallas_call(
        functools.partial(forward_tiles, kernel),
        out_shape=(content, jax.ShapeDtypeStruct(sums, jnp.float32)),
        out_specs=(specs.queries, specs.row),
        in_specs=(*specs.inputs, *specs.given),
        cost_estimate=kernel.cost(inputs, products=2),
        interpret=kernel.interpret,
        name="attention_forward",
        **specs.options,
    )(*inputs, *given)


def backward_pass(
    kernel: Kernel, inputs: KernelInputs, given: KernelConstants, more: tuple
):
    """The gradient of all inputs; that of distances with an axis of 1 in front.

    Args:
      more: what was found, its gradient, and the logarithms of sums.
    """
    specs = Specs.of(kernel, inputs, given)
    wanted = [*inputs[:3]]
    places = [specs.queries, specs.keys, specs.keys]
    if kernel.relative:
        by_distance = (1, *inputs.distances.shape)
        wanted += [inputs.position, jax.ShapeDtypeStruct(by_distance, jnp.float32)]
        places += [specs.queries, specs.by_distance]
    sums = pltpu.VMEM(inputs.keys.shape[2:], jnp.float32)
    found = pl.pallas_call(
        functools.partial(backward_tiles, kernel),
        out_shape=wanted,
        out_specs=places,
        in_specs=(*specs.inputs, *specs.given, specs.queries, specs.queries, specs.row),
        cost_estimate=kernel.cost(inputs, products=5),
        interpret=kernel.interpret,
        name="attention_backward",
        scratch_shapes=(sums, sums),
        **specs.options,
    )(*inputs, *given, *more)
    return KernelInputs(*found, *(None,) * (5 - len(found)))


class Specs(NamedTuple):
    """Which part of each array a program is given: that of a row of tiles of a head.

    Attributes:
      queries, keys, row: of arrays with an entry for each of them.
      by_distance: of what adds up over the rows of a batch.
      inputs, given: of all of these.
      options: what both passes are called with.
    """

    queries: pl.BlockSpec
    keys: pl.BlockSpec
    row: pl.BlockSpec
    by_distance: pl.BlockSpec
    inputs: tuple
    given: KernelConstants
    options: dict

    @classmethod
    def of(
        cls, kernel: Kernel, inputs: KernelInputs, given: KernelConstants
    ) -> "Specs":
        """Those of arrays of these sizes."""
        tiling, (rows, heads, _, width) = kernel.tiling, inputs.content.shape
        columns = tiling.filled_queries + tiling.filled_keys

        def whole(length):
            return pl.BlockSpec(
                (None, None, length, width), lambda h, b, r: (b, h, 0, 0)
            )

        queries = pl.BlockSpec(
            (None, None, tiling.queries, width), lambda h, b, r: (b, h, r, 0)
        )
        keys = whole(tiling.filled_keys)
        distances = pl.BlockSpec((None, columns, width), lambda h, b, r: (h, 0, 0))
        row = pl.BlockSpec(
            (None, None, 1, tiling.queries), lambda h, b, r: (b, h, 0, r)
        )
        by_row, by_query = (int(size > 1) for size in given.mask.shape[:2])
        mask = pl.BlockSpec(
            (None, tiling.queries if by_query else 1, tiling.filled_keys),
            lambda h, b, r: (b * by_row, r * by_query, 0),
        )
        scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
        bounds = pl.BlockSpec(
            (None, 1, given.bounds.shape[2]),
            lambda h, b, r: (b * by_row, 0, 0),
            memory_space=pltpu.SMEM,
        )
        both = (queries, distances) if kernel.relative else (None, None)
        options = {
            "grid": (heads, rows, tiling.rows),
            "compiler_params": pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary", "arbitrary"),
                vmem_limit_bytes=VMEM_LIMIT_BYTES,
            ),
        }
        return cls(
            queries,
            keys,
            row,
            pl.BlockSpec((None, None, columns, width), lambda h, b, r: (0, h, 0, 0)),
            (queries, keys, keys, *both),
            KernelConstants(mask, bounds, scalars, scalars),
            options,
        )
