"""Tiling of queries and keys, and TPU kernels for one row of tiles of one head.

The kernels' arrays are references into VMEM; `attention.py` says which parts of a
model's arrays these are.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, Int8, PyTree, UInt32

from models.common.dropout import linear_index, strides
from models.common.dtypes import upcast_to_f32
from utils.hash_keys import hash32

MAX_TILE_QUERIES, MAX_TILE_KEYS = 256, 512
LANES = 128  # tile sizes are multiples of it
LOWEST = float(jnp.finfo(jnp.float32).min)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Tiles of T queries and S keys; queries are padded before the first one.

    Relative position column c belongs to query i and key j if c = j + T - 1 - i. With
    padding, T' queries, it is c = j + T' - 1 - i', the same column. So the columns of a
    tile begin at a multiple of LANES.

    Attributes:
      num_queries, num_keys: numbers of queries (T) and keys (S).
      tile_queries, tile_keys: sizes of a tile.
      padded_queries, padded_keys: numbers with padding (T', S').
    """

    num_queries: int
    num_keys: int
    tile_queries: int
    tile_keys: int
    padded_queries: int
    padded_keys: int

    @classmethod
    def from_lengths(cls, num_queries: int, num_keys: int) -> "Tiling":
        """Returns a tiling with little padding and large tiles."""
        tiles = (
            choose_tile_size(num_queries, MAX_TILE_QUERIES),
            choose_tile_size(num_keys, MAX_TILE_KEYS),
        )
        lengths = (num_queries, num_keys)
        padded = (-(-n // tile) * tile for n, tile in zip(lengths, tiles, strict=True))
        return cls(*lengths, *tiles, *padded)

    @property
    def query_tiles(self) -> int:
        """Number of tiles along the queries."""
        return self.padded_queries // self.tile_queries

    @property
    def query_padding(self) -> int:
        """Number of padding queries, before the first query."""
        return self.padded_queries - self.num_queries

    def pad_queries(self, x: Float[Array, "B H T K"]) -> Float[Array, "B H _ K"]:
        """Pads queries with zeros, before the first one."""
        return jnp.pad(x, ((0, 0), (0, 0), (self.query_padding, 0), (0, 0)))

    def pad_keys(self, x: Float[Array, "B H S K"]) -> Float[Array, "B H _ K"]:
        """Pads keys or values with zeros, after the last one."""
        padding = self.padded_keys - self.num_keys
        return jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0)))

    def pad_relative_keys(self, x: Float[Array, "C H K"]) -> Float[Array, "H _ K"]:
        """Pads or cuts relative keys to the columns of all tiles, heads first."""
        columns = self.padded_queries + self.padded_keys
        padded = jnp.pad(x, ((0, columns), (0, 0), (0, 0)))[:columns]
        return jnp.swapaxes(padded, 0, 1)

    def pad_mask(self, mask: Bool[Array, "b 1 t S"]) -> Bool[Array, "b 1 _ _"]:
        """Pads a mask so that padding keys are never attended; axes of 1 stay."""
        before = self.query_padding if mask.shape[2] == self.num_queries else 0
        after = self.padded_keys - self.num_keys
        return jnp.pad(mask, ((0, 0), (0, 0), (before, 0), (0, after)))

    def key_tile_bounds(self, mask: Bool[Array, "b 1 t _"]) -> Int[Array, "b _"]:
        """Returns, for each row of tiles, the range of tiles with unmasked keys.

        Two numbers a row: the first such tile, and the one after the last.
        """
        batch_size, key_tiles = len(mask), self.padded_keys // self.tile_keys
        shape = (batch_size, -1, self.tile_queries, key_tiles, self.tile_keys)
        whole = (batch_size, self.padded_queries, self.padded_keys)
        used = jnp.broadcast_to(mask[:, 0], whole).reshape(shape).any((2, 4))
        first = jnp.argmax(used, axis=2)
        end = key_tiles - jnp.argmax(used[..., ::-1], axis=2)
        end = jnp.where(used.any(axis=2), end, first)
        bounds = jnp.stack([first, end], axis=2)
        return bounds.reshape(batch_size, -1).astype(jnp.int32)


def choose_tile_size(size: int, largest: int) -> int:
    """Returns the largest of the tile sizes with the least padding."""
    choices = range(LANES, largest + 1, LANES)
    return min(choices, key=lambda tile: (-(-size // tile) * tile, -tile))


class KernelInputs(NamedTuple):
    """Padded inputs of attention that have a gradient."""

    query: Float[Array, "B H _ K"]
    key: Float[Array, "B H J K"]
    value: Float[Array, "B H J K"]
    position_query: Float[Array, "B H _ K"] | None
    relative_keys: Float[Array, "H _ K"] | None


class KernelConstants(NamedTuple):
    """Inputs of attention that have no gradient.

    Attributes:
      mask: 1 where a query attends to a key; axes of 1 broadcast.
      bounds: see `Tiling.key_tile_bounds`; in SMEM, one example at a time.
      seeds: keys and threshold of a dropout mask, as a row. Under vmap there are more
        rows; a TPU reads whole rows of scalars.
      factor: factor of the dropout mask.
    """

    mask: Int8[Array, "b t J"]
    bounds: Int[Array, "b 1 R"]
    seeds: UInt32[Array, "1 3"]
    factor: Float[Array, "1 1"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Static parameters of the kernels.

    Attributes:
      shape: batch size and number of heads, of all devices together.
      scale: factor of the logits.
      interpret: whether the program is for a device that is not a TPU.
    """

    tiling: Tiling
    shape: tuple[int, int]
    scale: float
    is_relative: bool
    has_dropout: bool
    interpret: bool

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of dropout indices in weights [B, H, T, S]."""
        return strides((*self.shape, self.tiling.num_queries, self.tiling.num_keys))

    def cost(self, inputs: KernelInputs, products: int) -> pl.CostEstimate:
        """Estimates the cost, as if no tile were skipped.

        Args:
          products: number of products of queries with keys; those of relative
            positions are half as many.
        """
        batch_size, heads, _, width = inputs.query.shape
        weights = batch_size * heads * self.tiling.num_queries * self.tiling.num_keys
        products += products // 2 * self.is_relative
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs))
        return pl.CostEstimate(
            flops=2 * weights * width * products,
            transcendentals=weights,
            bytes_accessed=products * size // 2,
        )


@dataclasses.dataclass(frozen=True)
class TileRow:
    """One row of tiles of one head, in VMEM.

    Attributes:
      index: indices of the example, the head and the row of tiles.
    """

    kernel: Kernel
    inputs: KernelInputs
    constants: KernelConstants
    index: tuple[Int[Array, ""], ...]

    @classmethod
    def from_refs(cls, kernel: Kernel, refs: Sequence) -> "TileRow":
        """Returns the row of the current program, from its references."""
        head, example, row = (pl.program_id(axis) for axis in range(3))
        inputs, constants = KernelInputs(*refs[:5]), KernelConstants(*refs[5:9])
        return cls(kernel, inputs, constants, (example, head, row))

    def sum_over_tiles(self, add_tile: Callable, zeros: PyTree) -> PyTree:
        """Applies `add_tile(column, sums)` to all tiles with unmasked keys."""
        first = 2 * self.index[2]
        bounds = [self.constants.bounds[0, first + i] for i in range(2)]
        return jax.lax.fori_loop(*bounds, add_tile, zeros)

    def key_slice(self, column: Int[Array, ""]) -> pl.Slice:
        """Returns the keys of a tile."""
        size = self.kernel.tiling.tile_keys
        return pl.ds(pl.multiple_of(column * size, size), size)

    def relative_slice(self, column: Int[Array, ""]) -> pl.Slice:
        """Returns the relative positions of a tile."""
        tiling = self.kernel.tiling
        end = (self.index[2] + 1) * tiling.tile_queries
        first = column * tiling.tile_keys + tiling.padded_queries - end
        return pl.ds(
            pl.multiple_of(first, LANES), tiling.tile_queries + tiling.tile_keys
        )

    def logits(self, column: Int[Array, ""]) -> Float[Array, "Q J"]:
        """Computes the scaled logits of a tile."""
        query, key, _, position_query, relative_keys = self.inputs
        logits = matmul(query[...], key[self.key_slice(column)], (1, 1))
        if self.kernel.is_relative:
            near = relative_keys[self.relative_slice(column)]
            relative = matmul(position_query[...], near, (1, 1))
            logits += relative_shift_tile(relative, self.kernel.tiling.tile_keys)
        return logits * self.kernel.scale

    def mask(self, column: Int[Array, ""]) -> Bool[Array, "Q J"]:
        """Returns the attention mask of a tile."""
        tiling = self.kernel.tiling
        mask = self.constants.mask[:, self.key_slice(column)].astype(jnp.int32)
        return jnp.broadcast_to(mask, (tiling.tile_queries, tiling.tile_keys)) != 0

    def dropout(self, column: Int[Array, ""]) -> Float[Array, "Q J"] | float:
        """Returns the dropout factors of a tile's weights: 0, or that of kept ones."""
        if not self.kernel.has_dropout:
            return 1.0
        tiling = self.kernel.tiling
        seeds = [self.constants.seeds[0, i] for i in range(3)]
        query = self.index[2] * tiling.tile_queries - tiling.query_padding
        corner = (*self.index[:2], query, column * tiling.tile_keys)
        first = jnp.uint32(0)
        for count, stride in zip(corner, self.kernel.strides, strict=True):
            first += count.astype(jnp.uint32) * jnp.uint32(stride)
        shape = (tiling.num_queries, tiling.num_keys)
        index = linear_index((tiling.tile_queries, tiling.tile_keys), shape) + first
        keep = hash32((seeds[0], seeds[1]), index) >= seeds[2]
        return jnp.where(keep, self.constants.factor[0, 0], 0)


def forward_tiles(kernel: Kernel, *refs) -> None:
    """Computes the outputs of a row's queries and the logarithms of their sums.

    Args:
      refs: fields of KernelInputs and KernelConstants; the two results.
    """
    *refs, output, logsum = refs
    row = TileRow.from_refs(kernel, refs)
    value = row.inputs.value

    def add_tile(column, state):
        largest, total, sums = state
        mask = row.mask(column)
        logits = jnp.where(mask, row.logits(column), LOWEST)
        new = jnp.maximum(largest, logits.max(axis=1, keepdims=True))
        exps = jnp.where(mask, jnp.exp(logits - new), 0)
        rescale = jnp.exp(largest - new)
        weights = (exps * row.dropout(column)).astype(value.dtype)
        tile = matmul(weights, value[row.key_slice(column)], (1, 0))
        total = total * rescale + exps.sum(axis=1, keepdims=True)
        return new, total, sums * rescale + tile

    shape = (kernel.tiling.tile_queries, 1)
    state = (
        jnp.full(shape, LOWEST, jnp.float32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(output.shape, jnp.float32),
    )
    largest, total, sums = row.sum_over_tiles(add_tile, state)
    is_empty = total == 0
    output[...] = jnp.where(is_empty, 0, sums / total).astype(output.dtype)
    logsum[...] = jnp.where(is_empty, 0, largest + jnp.log(total)).reshape(1, -1)


def backward_tiles(kernel: Kernel, *refs) -> None:
    """Computes the gradient of a row's queries, and adds to those of its keys.

    Args:
      refs: fields of KernelInputs and KernelConstants; outputs, their gradient and
        the logarithms of sums; gradients of KernelInputs; buffers for the sums of the
        gradients of keys and of values.
    """
    row = TileRow.from_refs(kernel, refs)
    output, gradient, logsum, *results, key_sums, value_sums = refs[9:]
    d_query, d_key, d_value, *d_relative = results
    inputs, dtype, row_index = row.inputs, output.dtype, row.index[2]

    @pl.when(row_index == 0)
    def _():
        key_sums[...] = jnp.zeros_like(key_sums)
        value_sums[...] = jnp.zeros_like(value_sums)

    if kernel.is_relative:

        @pl.when((row_index == 0) & (row.index[0] == 0))
        def _():
            d_relative[1][...] = jnp.zeros_like(d_relative[1])

    products = upcast_to_f32(gradient[...]) * upcast_to_f32(output[...])
    mean = products.sum(axis=1, keepdims=True)
    logsum = logsum[...].reshape(-1, 1)

    def add_tile(column, sums):
        keys, positions = row.key_slice(column), row.relative_slice(column)
        exps, dropout = jnp.exp(row.logits(column) - logsum), row.dropout(column)
        weights = jnp.where(row.mask(column), exps, 0)
        d_weights = matmul(gradient[...], inputs.value[keys], (1, 1))
        d_logits = weights * (d_weights * dropout - mean) * kernel.scale
        dropped = (weights * dropout).astype(dtype)
        value_sums[keys] += matmul(dropped, gradient[...], (0, 0))
        rounded = d_logits.astype(dtype)
        key_sums[keys] += matmul(rounded, inputs.query[...], (0, 0))
        new_sums = [sums[0] + matmul(rounded, inputs.key[keys], (1, 0))]
        if kernel.is_relative:
            d_shifted = relative_shift_tile_transpose(d_logits).astype(dtype)
            d_relative[1][positions] += matmul(
                d_shifted, inputs.position_query[...], (0, 0)
            )
            near = inputs.relative_keys[positions]
            new_sums.append(sums[1] + matmul(d_shifted, near, (1, 0)))
        return new_sums

    zeros = [jnp.zeros(d_query.shape, jnp.float32)] * (1 + kernel.is_relative)
    sums = row.sum_over_tiles(add_tile, zeros)
    for result, total in zip([d_query, *d_relative[:1]], sums, strict=True):
        result[...] = total.astype(dtype)

    @pl.when(row_index == kernel.tiling.query_tiles - 1)
    def _():
        d_key[...] = key_sums[...].astype(dtype)
        d_value[...] = value_sums[...].astype(dtype)


def matmul(
    a: Float[Array, "..."], b: Float[Array, "..."], axes: tuple[int, int]
) -> Float[Array, "..."]:
    """Multiplies two matrices over an axis of each, with sums in float32."""
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def relative_shift_tile(
    by_position: Float[Array, "Q W"], num_keys: int
) -> Float[Array, "Q _"]:
    """Applies `relative_shift` to a tile: output[i, j] = input[i, j + Q - 1 - i].

    It is a roll to the right by one more in each row, a single operation of a TPU.
    """
    queries, columns = by_position.shape
    shifted = pltpu.roll(
        by_position, columns - queries + 1, axis=1, stride=1, stride_axis=0
    )
    return shifted[:, :num_keys]


def relative_shift_tile_transpose(
    by_key: Float[Array, "Q J"],
) -> Float[Array, "Q W"]:
    """Transposes `relative_shift_tile`: output[i, j + Q - 1 - i] = input[i, j].

    Other entries are 0. It is a roll by one less in each row; a TPU has no such
    operation, so it rolls by powers of two.
    """
    queries = len(by_key)
    zeros = jnp.zeros((queries, queries), by_key.dtype)
    rolled = jnp.concatenate([by_key, zeros], axis=1)
    row = jax.lax.broadcasted_iota(jnp.int32, rolled.shape, 0)
    shift, step = queries - 1 - row, 1
    while step < queries:
        further = pltpu.roll(rolled, step, axis=1)
        rolled = jnp.where((shift & step) != 0, further, rolled)
        step *= 2
    return rolled
