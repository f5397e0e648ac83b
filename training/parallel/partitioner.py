"""One program that sees all rows, and that the compiler spreads over a mesh."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from ml_collections import ConfigDict

from training.parallel.device_rows import first_rows
from training.parallel.mesh import ROWS, Devices, make_mesh, places_of, surroundings
from training.step import Step

Batch = dict[str, np.ndarray]


class Partitioner:
    """Spreads state, carry and batches over the devices of a mesh, under jit.

    Attributes:
      axis_name: over which a step has to add up; None: it sees all rows.
    """

    axis_name: str | None = None

    def __init__(self, cfg: ConfigDict, *, parts: int = 1, devices: Devices = None):
        """Args: see `make_partitioner`.

        Raises UserError where the axes do not multiply to the devices there are.
        """
        self.mesh = make_mesh(cfg.data, cfg.fsdp, cfg.tensor, devices)
        self.row_parts = parts * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self.rows = NamedSharding(self.mesh, P(ROWS))
        self.replicated = NamedSharding(self.mesh, P())
        self._strip: dict[int, Callable] = {}

    def init(self, make: Callable[[], PyTree]) -> PyTree:
        """Makes a state where it will live, no device holding more than its part."""
        shardings = self.shardings(make)
        with jax.set_mesh(self.mesh):
            return jax.jit(lambda: nn.meta.unbox(make()), out_shardings=shardings)()

    def shardings(self, make: Callable[[], PyTree]) -> PyTree:
        """Where each leaf of the state lies; axes that do not divide stay whole."""
        return self.shardings_of(jax.eval_shape(make))

    def shardings_of(self, boxed: PyTree) -> PyTree:
        """The same, of shapes with the names of their axes."""
        return places_of(boxed, self.mesh)

    def bytes_a_device(self, boxed: PyTree) -> int:
        """What a device holds of a state, exactly, from its shapes."""
        return sum(
            leaf.dtype.itemsize * math.prod(place.shard_shape(leaf.shape))
            for leaf, place in zip(
                jax.tree.leaves(nn.meta.unbox(boxed)),
                jax.tree.leaves(self.shardings_of(boxed)),
                strict=True,
            )
        )

    def carry_bytes_a_device(self, make: Callable[[int], PyTree], rows: int) -> int:
        """What a device holds of the carry that `make` gives for so many rows."""
        found = jax.eval_shape(lambda: make(self.padded(rows)))
        return sum(
            leaf.dtype.itemsize
            * leaf.size
            // (self._num_row_shards if leaf.ndim else 1)
            for leaf in jax.tree.leaves(found)
        )

    def compile(self, step: Step, state: PyTree, carry: PyTree, *, shapes: int) -> Step:
        """The step under jit; it consumes the state and the carry it is given.

        What comes out lies where `state` and `carry` lie, so that a step's
        results fit the next without compiling again.

        Args:
          shapes: of batches, and so the number of programs. More of them are a
            mistake of ours, which stops a run rather than make it slow.
        """
        jitted = self._jitted(step, state, carry)

        def call(state, carry, batch):
            with self._surroundings():
                found = jitted(state, carry, batch)
            if jitted._cache_size() > shapes:
                raise RuntimeError(f"the step was compiled more than {shapes} times")
            return found

        call.cache_size = jitted._cache_size
        return call

    def lower(
        self, step: Step, state: PyTree, carry: PyTree, batch: PyTree
    ) -> jax.stages.Lowered:
        """The same for shapes that say where they lie; their devices need not exist."""
        with self._surroundings():
            return self._jitted(step, state, carry).lower(state, carry, batch)

    def _jitted(self, step, state, carry):
        places = jax.tree.map(lambda leaf: leaf.sharding, (state, carry))
        return jax.jit(
            self._spread(step, carry),
            donate_argnums=(0, 1),
            out_shardings=(*places, self.replicated),
        )

    def laid_state(self, boxed: PyTree) -> PyTree:
        """Shapes of a state where they lie, from those with the names of axes."""
        return jax.tree.map(_laid, nn.meta.unbox(boxed), self.shardings_of(boxed))

    def laid_rows(self, shapes: PyTree) -> PyTree:
        """Shapes of a carry or a batch of padded rows, where they lie."""
        return jax.tree.map(lambda leaf: _laid(leaf, self._place(leaf)), shapes)

    def _spread(self, step: Step, carry: PyTree) -> Step:
        """The step as all devices take it together."""
        return step

    def _surroundings(self) -> AbstractContextManager:
        """Of a call."""
        return surroundings(self.mesh)

    def evaluation(self) -> AbstractContextManager:
        """Of a trace that uses parameters that lie here, see `at_hand`."""
        return surroundings(self.mesh) if jax.process_count() == 1 else nullcontext()

    def padded(self, rows: int) -> int:
        """The next number of rows that the mesh and the parts divide."""
        return -(-rows // self.row_parts) * self.row_parts

    def put_batch(self, batch: Batch) -> dict[str, jax.Array]:
        """A batch on the devices; rows of zeros, so of weight 0, fill it up."""
        rows = len(next(iter(batch.values())))
        return self.read_batch(
            lambda some: {k: v[some] for k, v in batch.items()}, rows
        )

    def read_batch(
        self, part: Callable[[slice], Batch], rows: int
    ) -> dict[str, jax.Array]:
        """The same, of which every process reads the rows of its own devices.

        Args:
          part: gives some rows of the batch.
          rows: of the whole batch.
        """
        padded = self.padded(rows)
        places = self.rows.addressable_devices_indices_map((padded,)).values()
        bounds = [place.indices(padded) for (place,) in places]
        first, last = min(b[0] for b in bounds), max(b[1] for b in bounds)

        def place(leaf):
            spare = [(0, last - first - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
            filled = np.pad(leaf, spare)

            def shard(index):
                start, stop, _ = index[0].indices(padded)
                return filled[start - first : stop - first]

            shape = (padded, *leaf.shape[1:])
            return jax.make_array_from_callback(shape, self.rows, shard)

        found = part(slice(min(first, rows), min(last, rows)))
        return {name: place(leaf) for name, leaf in found.items()}

    def init_carry(self, make: Callable[[int], PyTree], rows: int) -> PyTree:
        """A carry of padded rows, made where it will lie.

        Args:
          make: from a number of rows to their carry.
        """
        padded = self.padded(rows)
        return self._jit(lambda: make(padded))()

    def stored_carry(self, carry: PyTree, rows: int) -> PyTree:
        """As checkpoints keep it: without the rows that fill it up."""
        if self.padded(rows) == rows:
            return carry
        if rows not in self._strip:  # compiled once, not at every save
            self._strip[rows] = self._jit(lambda carry: first_rows(carry, rows))
        return self._strip[rows](carry)

    def restored_carry(self, stored: PyTree, fresh: PyTree) -> PyTree:
        """What was stored, on these devices; the rows that fill it up are fresh.

        Args:
          stored: of any number of devices, in any mode.
          fresh: what `init_carry` gives here.
        """

        def fill(old, new):
            return jnp.concatenate([old, new[len(old) :]]) if old.ndim else old

        def join(stored, fresh):
            return jax.tree.map(fill, stored, fresh)

        return self._jit(join)(stored, fresh)

    def _jit(self, make: Callable) -> Callable:
        """Compiled, results with rows spread over the devices if those divide them."""
        compiled = None

        def call(*inputs):
            nonlocal compiled
            if compiled is None:
                places = jax.tree.map(self._place, jax.eval_shape(make, *inputs))
                compiled = jax.jit(make, out_shardings=places)
            return compiled(*inputs)

        return call

    def _place(self, leaf) -> NamedSharding:
        divides = leaf.ndim and leaf.shape[0] % self._num_row_shards == 0
        return self.rows if divides else self.replicated

    @property
    def _num_row_shards(self) -> int:
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]


def _laid(leaf, place) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
