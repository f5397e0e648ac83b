"""Tiling of queries and keys, for kernels that process them tile by tile."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

MAX_TILE_QUERIES, MAX_TILE_KEYS = 256, 512
LANES = 128  # tile sizes are multiples of it


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Tiles of T queries and S keys; queries are padded before the first one.

    Relative position column c belongs to query i and key j if c = j + T - 1 - i. With
    padding, T' queries, it is c = j + T' - 1 - i', the same column. So the columns of a
    tile begin at a multiple of LANES.

    Attributes:
      num_queries, num_keys: numbers of queries (T) and keys (S).
      tile_queries, tile_keys: sizes of a tile.
    """

    num_queries: int
    num_keys: int
    tile_queries: int
    tile_keys: int

    @classmethod
    def from_lengths(cls, num_queries: int, num_keys: int) -> "Tiling":
        """Returns a tiling with little padding and large tiles."""
        tile_queries = choose_tile_size(num_queries, MAX_TILE_QUERIES)
        tile_keys = choose_tile_size(num_keys, MAX_TILE_KEYS)
        return cls(num_queries, num_keys, tile_queries, tile_keys)

    @property
    def query_tiles(self) -> int:
        """Number of tiles along the queries."""
        return -(-self.num_queries // self.tile_queries)

    @property
    def key_tiles(self) -> int:
        """Number of tiles along the keys."""
        return -(-self.num_keys // self.tile_keys)

    @property
    def padded_queries(self) -> int:
        """Number of queries with padding (T')."""
        return self.query_tiles * self.tile_queries

    @property
    def padded_keys(self) -> int:
        """Number of keys with padding (S')."""
        return self.key_tiles * self.tile_keys

    @property
    def query_padding(self) -> int:
        """Number of padding queries, before the first query."""
        return self.padded_queries - self.num_queries

    @property
    def key_padding(self) -> int:
        """Number of padding keys, after the last key."""
        return self.padded_keys - self.num_keys

    @property
    def relative_columns(self) -> int:
        """Number of relative positions in a tile, plus one."""
        return self.tile_queries + self.tile_keys

    def pad_queries(self, x: Float[Array, "B H T K"]) -> Float[Array, "B H _ K"]:
        """Pads queries with zeros, before the first one."""
        return jnp.pad(x, ((0, 0), (0, 0), (self.query_padding, 0), (0, 0)))

    def pad_keys(self, x: Float[Array, "B H S K"]) -> Float[Array, "B H _ K"]:
        """Pads keys or values with zeros, after the last one."""
        return jnp.pad(x, ((0, 0), (0, 0), (0, self.key_padding), (0, 0)))

    def pad_relative_keys(self, x: Float[Array, "C H K"]) -> Float[Array, "H _ K"]:
        """Pads or cuts relative keys to the columns of all tiles, heads first."""
        columns = self.padded_queries + self.padded_keys
        padded = jnp.pad(x, ((0, columns), (0, 0), (0, 0)))[:columns]
        return jnp.swapaxes(padded, 0, 1)

    def pad_mask(self, mask: Bool[Array, "b 1 t S"]) -> Bool[Array, "b 1 _ _"]:
        """Pads a mask so that padding keys are never attended; axes of 1 stay."""
        before = self.query_padding if mask.shape[2] == self.num_queries else 0
        return jnp.pad(mask, ((0, 0), (0, 0), (before, 0), (0, self.key_padding)))

    def key_tile_bounds(self, mask: Bool[Array, "b 1 t _"]) -> Int[Array, "b _"]:
        """Returns, for each row of tiles, the range of tiles with unmasked keys.

        Two numbers a row: the first such tile, and the one after the last.
        """
        batch_size = len(mask)
        shape = (batch_size, -1, self.tile_queries, self.key_tiles, self.tile_keys)
        whole = (batch_size, self.padded_queries, self.padded_keys)
        used = jnp.broadcast_to(mask[:, 0], whole).reshape(shape).any((2, 4))
        first = jnp.argmax(used, axis=2)
        end = self.key_tiles - jnp.argmax(used[..., ::-1], axis=2)
        end = jnp.where(used.any(axis=2), end, first)
        bounds = jnp.stack([first, end], axis=2)
        return bounds.reshape(batch_size, -1).astype(jnp.int32)


def choose_tile_size(size: int, largest: int) -> int:
    """Returns the largest of the tile sizes with the least padding."""
    choices = range(LANES, largest + 1, LANES)
    return min(choices, key=lambda tile: (-(-size // tile) * tile, -tile))


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
    by_key: Float[Array, "Q J"], columns: int
) -> Float[Array, "Q _"]:
    """Transposes `relative_shift_tile`: output[i, j + Q - 1 - i] = input[i, j].

    Other entries are 0. It is a roll by one less in each row; a TPU has no such
    operation, so it rolls by powers of two.
    """
    queries, keys = by_key.shape
    rolled = jnp.concatenate(
        [by_key, jnp.zeros((queries, columns - keys), by_key.dtype)], axis=1
    )
    row = jax.lax.broadcasted_iota(jnp.int32, (queries, columns), 0)
    shift, step = queries - 1 - row, 1
    while step < queries:
        further = pltpu.roll(rolled, step, axis=1)
        rolled = jnp.where((shift & step) != 0, further, rolled)
        step *= 2
    return rolled
