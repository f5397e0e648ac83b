"""What a TPU kernel of attention does with a row of tiles of one head.

Its arrays are references into fast memory; which parts of a model's arrays they are
says `models/attention/pallas_tpu/attention.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int, Int8, UInt32

from models.attention.pallas_tpu.tiling import (
    LANES,
    Tiling,
    relative_shift_tile,
    relative_shift_tile_transpose,
)
from models.common.dropout import hash32, linear_index, strides
from models.common.dtypes import upcast_to_f32

LOWEST = float(jnp.finfo(jnp.float32).min)


class KernelInputs(NamedTuple):
    """What a gradient is asked for, filled up."""

    content: Float[Array, "B H _ Dh"]
    keys: Float[Array, "B H J Dh"]
    values: Float[Array, "B H J Dh"]
    position: Float[Array, "B H _ Dh"] | None
    distances: Float[Array, "H _ Dh"] | None


class KernelConstants(NamedTuple):
    """What none is asked for.

    Attributes:
      mask: 1 where a query sees a key; axes of 1 stand for all alike.
      bounds: see `Tiling.bounds`; a row of the batch at a time is where scalars are.
      seeds: the keys of a draw and its least hash. A row, of which there may be more
        under vmap: a TPU takes whole rows of scalars.
      factor: its factor.
    """

    mask: Int8[Array, "b t J"]
    bounds: Int[Array, "b 1 R"]
    seeds: UInt32[Array, "1 3"]
    factor: Float[Array, "1 1"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What programs are made for.

    Attributes:
      shape: B and H, of all devices.
      scale: of scores.
      relative: whether there are scores by distance.
      drops: whether weights are left out.
      interpret: whether it is not a TPU that the programs are for.
    """

    tiling: Tiling
    shape: tuple[int, int]
    scale: float
    relative: bool
    drops: bool
    interpret: bool

    @property
    def strides(self) -> tuple[int, ...]:
        """Of places in [B, H, T, S]."""
        return strides((*self.shape, self.tiling.num_queries, self.tiling.num_keys))

    def cost(self, inputs: KernelInputs, products: int) -> pl.CostEstimate:
        """Of so many products of queries with keys, and half as many by distance.

        As if no tile were left out, and of those distances that a query meets.
        """
        rows, heads, _, width = inputs.content.shape
        weights = rows * heads * self.tiling.num_queries * self.tiling.num_keys
        products += products // 2 * self.relative
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs))
        return pl.CostEstimate(
            flops=2 * weights * width * products,
            transcendentals=weights,
            bytes_accessed=products * size // 2,
        )


@dataclasses.dataclass(frozen=True)
class TileRow:
    """A row of tiles of a head, in fast memory.

    Attributes:
      place: which row of the batch, which head, which row of tiles.
    """

    kernel: Kernel
    inputs: KernelInputs
    given: KernelConstants
    place: tuple[Int[Array, ""], ...]

    @classmethod
    def of(cls, kernel: Kernel, refs: Sequence) -> "TileRow":
        """That of the program at work, from the references it is given."""
        head, row, tiles = (pl.program_id(axis) for axis in range(3))
        return cls(
            kernel,
            KernelInputs(*refs[:5]),
            KernelConstants(*refs[5:9]),
            (row, head, tiles),
        )

    @property
    def bounds(self) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Of the tiles in which something is seen."""
        first = 2 * self.place[2]
        return self.given.bounds[0, first], self.given.bounds[0, first + 1]

    def keys(self, column: Int[Array, ""]) -> pl.Slice:
        """Of a tile."""
        side = self.kernel.tiling.keys
        return pl.ds(pl.multiple_of(column * side, side), side)

    def distances(self, column: Int[Array, ""]) -> pl.Slice:
        """Of a tile."""
        tiling = self.kernel.tiling
        below = (self.place[2] + 1) * tiling.queries
        first = column * tiling.keys + tiling.filled_queries - below
        return pl.ds(pl.multiple_of(first, LANES), tiling.window)

    def scores(self, column: Int[Array, ""]) -> Float[Array, "Q J"]:
        """Of a tile, scaled."""
        content, keys, _, position, distances = self.inputs
        scores = product(content[...], keys[self.keys(column)], (1, 1))
        if self.kernel.relative:
            near = distances[self.distances(column)]
            by_distance = product(position[...], near, (1, 1))
            scores += relative_shift_tile(by_distance, self.kernel.tiling.keys)
        return scores * self.kernel.scale

    def seen(self, column: Int[Array, ""]) -> Bool[Array, "Q J"]:
        """Which keys of a tile each query sees."""
        tiling = self.kernel.tiling
        mask = self.given.mask[:, self.keys(column)].astype(jnp.int32)
        return jnp.broadcast_to(mask, (tiling.queries, tiling.keys)) != 0

    def dropout(self, column: Int[Array, ""]) -> Float[Array, "Q J"] | float:
        """What multiplies a tile's weights: 0, or the factor of those that stay."""
        if not self.kernel.drops:
            return 1.0
        tiling, seeds = self.kernel.tiling, [self.given.seeds[0, i] for i in range(3)]
        corner = (
            *self.place[:2],
            self.place[2] * tiling.queries - tiling.spare,
            column * tiling.keys,
        )
        first = jnp.uint32(0)
        for count, stride in zip(corner, self.kernel.strides, strict=True):
            first += count.astype(jnp.uint32) * jnp.uint32(stride)
        shape = (tiling.num_queries, tiling.num_keys)
        place = linear_index((tiling.queries, tiling.keys), shape) + first
        stays = hash32((seeds[0], seeds[1]), place) >= seeds[2]
        return jnp.where(stays, self.given.factor[0, 0], 0)


def forward_tiles(kernel: Kernel, *refs) -> None:
    """Writes what a row's queries find, and their logarithms of sums.

    Args:
      refs: the fields of Inputs and Given, and the two that it writes.
    """
    *refs, found, logsum = refs
    row = TileRow.of(kernel, refs)
    values = row.inputs.values

    def turn(column, state):
        largest, total, found = state
        seen = row.seen(column)
        scores = jnp.where(seen, row.scores(column), LOWEST)
        new = jnp.maximum(largest, scores.max(axis=1, keepdims=True))
        powers = jnp.where(seen, jnp.exp(scores - new), 0)
        before = jnp.exp(largest - new)
        weighed = (powers * row.dropout(column)).astype(values.dtype)
        more = product(weighed, values[row.keys(column)], (1, 0))
        total = total * before + powers.sum(axis=1, keepdims=True)
        return new, total, found * before + more

    column = (kernel.tiling.queries, 1)
    nothing = (
        jnp.full(column, LOWEST, jnp.float32),
        jnp.zeros(column, jnp.float32),
        jnp.zeros(found.shape, jnp.float32),
    )
    largest, total, sums = jax.lax.fori_loop(*row.bounds, turn, nothing)
    alone = total == 0
    found[...] = jnp.where(alone, 0, sums / total).astype(found.dtype)
    logsum[...] = jnp.where(alone, 0, largest + jnp.log(total)).reshape(1, -1)


def backward_tiles(kernel: Kernel, *refs) -> None:
    """Writes the gradient of a row's queries, and adds to those of what they meet.

    Args:
      refs: the fields of Inputs and Given; what was found, its gradient, logarithms of
        sums; the gradients of Inputs; room for sums of those of keys and of values.
    """
    row = TileRow.of(kernel, refs)
    found, gradient, logsum, *results, key_sums, value_sums = refs[9:]
    by_content, by_keys, by_values, *by_apart = results
    inputs, kind, tiles = row.inputs, found.dtype, row.place[2]

    @pl.when(tiles == 0)
    def _():
        key_sums[...] = jnp.zeros_like(key_sums)
        value_sums[...] = jnp.zeros_like(value_sums)

    if kernel.relative:

        @pl.when((tiles == 0) & (row.place[0] == 0))
        def _():
            by_apart[1][...] = jnp.zeros_like(by_apart[1])

    mean = (upcast_to_f32(gradient[...]) * upcast_to_f32(found[...])).sum(
        axis=1, keepdims=True
    )
    logsum = logsum[...].reshape(-1, 1)

    def turn(column, sums):
        keys, distances = row.keys(column), row.distances(column)
        powers, dropout = jnp.exp(row.scores(column) - logsum), row.dropout(column)
        weights = jnp.where(row.seen(column), powers, 0)
        by_weight = product(gradient[...], inputs.values[keys], (1, 1))
        by_score = weights * (by_weight * dropout - mean) * kernel.scale
        weighed = (weights * dropout).astype(kind)
        value_sums[keys] += product(weighed, gradient[...], (0, 0))
        rounded = by_score.astype(kind)
        key_sums[keys] += product(rounded, inputs.content[...], (0, 0))
        found = [sums[0] + product(rounded, inputs.keys[keys], (1, 0))]
        if kernel.relative:
            apart = relative_shift_tile_transpose(
                by_score, kernel.tiling.window
            ).astype(kind)
            by_apart[1][distances] += product(apart, inputs.position[...], (0, 0))
            near = inputs.distances[distances]
            found.append(sums[1] + product(apart, near, (1, 0)))
        return found

    nothing = [jnp.zeros(by_content.shape, jnp.float32)] * (1 + kernel.relative)
    sums = jax.lax.fori_loop(*row.bounds, turn, nothing)
    for result, total in zip([by_content, *by_apart[:1]], sums, strict=True):
        result[...] = total.astype(kind)

    @pl.when(tiles == kernel.tiling.rows - 1)
    def _():
        by_keys[...] = key_sums[...].astype(kind)
        by_values[...] = value_sums[...].astype(kind)


def product(
    a: Float[Array, "..."], b: Float[Array, "..."], axes: tuple[int, int]
) -> Float[Array, "..."]:
    """Of two matrices, over an axis of each, added up in float32."""
    over = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a, b, over, preferred_element_type=jnp.float32)
