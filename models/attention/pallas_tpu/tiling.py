"""How queries and keys lie in tiles, for kernels that take them tile by tile."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

QUERIES, KEYS = 256, 512  # of a tile, at most
LANES = 128  # what sides are multiples of


@dataclasses.dataclass(frozen=True)
class Tiling:
    """T queries and S keys in tiles; queries are filled up in front of the first.

    Column c of a meeting's distances is that of query i and key j where c = j + T - 1
    - i, and with T' queries, filled up, c = j + T' - 1 - i', the same. So the columns
    of a tile begin at a multiple of LANES.

    Attributes:
      num_queries, num_keys: T and S.
      queries, keys: of a tile.
    """

    num_queries: int
    num_keys: int
    queries: int
    keys: int

    @classmethod
    def of(cls, num_queries: int, num_keys: int) -> "Tiling":
        """Tiles as large as they may be and fill up little."""
        queries = side_of(num_queries, QUERIES)
        return cls(num_queries, num_keys, queries, side_of(num_keys, KEYS))

    @property
    def rows(self) -> int:
        """Of tiles."""
        return -(-self.num_queries // self.queries)

    @property
    def columns(self) -> int:
        """Of tiles."""
        return -(-self.num_keys // self.keys)

    @property
    def filled_queries(self) -> int:
        """T'."""
        return self.rows * self.queries

    @property
    def filled_keys(self) -> int:
        """S'."""
        return self.columns * self.keys

    @property
    def spare(self) -> int:
        """Queries before the first."""
        return self.filled_queries - self.num_queries

    @property
    def window(self) -> int:
        """Distances that a tile meets, and one more."""
        return self.queries + self.keys

    def with_queries(self, x: Float[Array, "B H T Dh"]) -> Float[Array, "B H _ Dh"]:
        """Filled up with zeros."""
        return jnp.pad(x, ((0, 0), (0, 0), (self.spare, 0), (0, 0)))

    def with_keys(self, x: Float[Array, "B H S Dh"]) -> Float[Array, "B H _ Dh"]:
        """The same of keys or values."""
        more = self.filled_keys - self.num_keys
        return jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0)))

    def with_distances(self, x: Float[Array, "C H Dh"]) -> Float[Array, "H _ Dh"]:
        """Heads first, and as many columns as tiles meet."""
        columns = self.filled_queries + self.filled_keys
        filled = jnp.pad(x, ((0, columns), (0, 0), (0, 0)))[:columns]
        return jnp.swapaxes(filled, 0, 1)

    def with_mask(self, mask: Bool[Array, "b 1 t S"]) -> Bool[Array, "b 1 _ _"]:
        """Nobody sees a key that is none; an axis of 1 stays one."""
        more = self.filled_keys - self.num_keys
        spare = self.spare if mask.shape[2] == self.num_queries else 0
        return jnp.pad(mask, ((0, 0), (0, 0), (spare, 0), (0, more)))

    def bounds(self, mask: Bool[Array, "b 1 t _"]) -> Int[Array, "b _"]:
        """Of each row of tiles the first and one after the last that is seen."""
        shape = (len(mask), -1, self.queries, self.columns, self.keys)
        whole = (len(mask), self.filled_queries, self.filled_keys)
        seen = jnp.broadcast_to(mask[:, 0], whole).reshape(shape).any((2, 4))
        first = jnp.argmax(seen, axis=2)
        last = self.columns - jnp.argmax(seen[..., ::-1], axis=2)
        last = jnp.where(seen.any(axis=2), last, first)
        return jnp.stack([first, last], axis=2).reshape(len(mask), -1).astype(jnp.int32)


def side_of(size: int, most: int) -> int:
    """The largest side of which the fewest tiles' places stay empty."""
    sides = range(LANES, most + 1, LANES)
    return min(sides, key=lambda side: (-(-size // side) * side, -side))


def relative_shift_tile(
    by_distance: Float[Array, "Q W"], keys: int
) -> Float[Array, "Q _"]:
    """From a tile's columns of distances to its keys: out[i, j] = in[i, j + Q - 1 - i].

    As a roll to the right by one more in each row, which a TPU does in one operation.
    """
    queries, window = by_distance.shape
    shifted = pltpu.roll(
        by_distance, window - queries + 1, axis=1, stride=1, stride_axis=0
    )
    return shifted[:, :keys]


def relative_shift_tile_transpose(
    by_key: Float[Array, "Q J"], window: int
) -> Float[Array, "Q _"]:
    """Transpose of `relative_shift_tile`: out[i, j + Q - 1 - i] = in[i, j], else 0.

    A roll by one less in each row: a TPU has none, so by powers of two.
    """
    queries, keys = by_key.shape
    found = jnp.concatenate(
        [by_key, jnp.zeros((queries, window - keys), by_key.dtype)], axis=1
    )
    row = jax.lax.broadcasted_iota(jnp.int32, (queries, window), 0)
    shift, step = queries - 1 - row, 1
    while step < queries:
        rolled = pltpu.roll(found, step, axis=1)
        found = jnp.where((shift & step) != 0, rolled, found)
        step *= 2
    return found
