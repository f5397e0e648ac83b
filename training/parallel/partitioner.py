"""Partitioning under `jit`: one program, sharded over a device mesh by the compiler."""

import functools
import math
import pkgutil
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

from training.parallel.mesh import (
    ROWS,
    Devices,
    make_mesh,
    mesh_context,
    param_shardings,
)
from training.step import Step
from utils.allocator import return_unused_memory
from utils.errors import UserError

Batch = dict[str, np.ndarray]
PARTITIONERS = {  # by `parallel.mode`
    "jit": "training.parallel.partitioner:JitPartitioner",
    "pmap": "training.parallel.pmap:PmapPartitioner",
}
# Of the program that makes the first state, by platform. It runs once, so that less
# optimization ends sooner, with the same bits.
INIT_OPTIONS = {"cpu": {"xla_backend_optimization_level": 1}}


class JitPartitioner:
    """Places state, carry and batches on a mesh and compiles steps under `jit`.

    Attributes:
      axis_name: mapped axis over which a step sums; None: it sees the whole batch.
    """

    axis_name: str | None = None

    def __init__(
        self, cfg: ConfigDict, *, num_microbatches: int = 1, devices: Devices = None
    ):
        """Makes the mesh; for arguments and errors see `make_partitioner`."""
        self.mesh = make_mesh(cfg.data, cfg.fsdp, cfg.tensor, devices)
        self.row_multiple = num_microbatches * self._num_row_shards
        self.rows = NamedSharding(self.mesh, P(ROWS))
        self.replicated = NamedSharding(self.mesh, P())
        self._strip: dict[int, Callable] = {}

    def init(self, make: Callable[[], PyTree]) -> PyTree:
        """Makes a state with its sharding; no device holds more than its shards."""
        make = jax.jit(make, inline=True)  # so that it is traced once
        with jax.set_mesh(self.mesh):
            shardings = self.shardings_of(jax.eval_shape(make))
            options = INIT_OPTIONS.get(self.mesh.devices.flat[0].platform)
            return jax.jit(
                lambda: nn.meta.unbox(make()),
                out_shardings=shardings,
                compiler_options=options,
            )()

    def shardings_of(self, boxed: PyTree) -> PyTree:
        """Returns the sharding of each leaf, from shapes with the names of axes."""
        return param_shardings(boxed, self.mesh)

    def bytes_per_device(self, boxed: PyTree) -> int:
        """Returns the bytes per device of a state, from its shapes."""
        return _bytes_per_device(self.sharded_shapes(boxed))

    def carry_bytes_per_device(self, make: Callable[[int], PyTree], rows: int) -> int:
        """Returns the bytes per device of the carry that `make(rows)` returns."""
        carry = jax.eval_shape(lambda: make(self.pad_batch_size(rows)))
        return _bytes_per_device(self.sharded_row_shapes(carry))

    def compile(self, step: Step, state: PyTree, carry: PyTree, *, shapes: int) -> Step:
        """Compiles a step under jit; it donates the state and the carry.

        Outputs have the shardings of the examples `state` and `carry`, so that a
        step's outputs are inputs of the next without compiling again.

        Args:
          shapes: number of batch shapes. More compilations raise RuntimeError, since
            they would slow a run without notice.
        """
        jitted, compiled = self._jitted(step, state, carry), set()

        def call(state, carry, batch):
            shape = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
            with self._call_context():
                if shape not in compiled:
                    # Apart from the call, which needs the memory of the compiler.
                    jitted.lower(state, carry, batch).compile()
                    return_unused_memory()
                    compiled.add(shape)
                outputs = jitted(state, carry, batch)
            if jitted._cache_size() > shapes:
                raise RuntimeError(f"the step was compiled more than {shapes} times")
            return outputs

        call.cache_size = jitted._cache_size
        return call

    def compile_observer(self, observe: Callable, *, whole: bool = False) -> Callable:
        """Compiles (state, carry, batch) -> replicated arrays; it donates nothing.

        Args:
          whole: it reads all rows at once, also where steps are mapped over devices.
        """

        def as_step(state, carry, batch):
            return (), carry, observe(state, carry, batch)

        @functools.partial(jax.jit, out_shardings=self.replicated)
        def compiled(state, carry, batch):
            wrapped = as_step if whole else self.wrap(as_step, carry)
            return wrapped(state, carry, batch)[2]

        def call(state, carry, batch):
            with self._call_context():
                return compiled(state, carry, batch)

        return call

    def lower(self, step: Step, state, carry, batch) -> jax.stages.Lowered:
        """Lowers the step for shapes with shardings; their devices need not exist."""
        with self._call_context():
            return self._jitted(step, state, carry).lower(state, carry, batch)

    def _jitted(self, step, state, carry):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, (state, carry))
        return jax.jit(
            self.wrap(step, carry),
            donate_argnums=(0, 1),
            out_shardings=(*shardings, self.replicated),
        )

    def sharded_shapes(self, boxed: PyTree) -> PyTree:
        """Returns the shapes of a state with their shardings, from boxed shapes."""
        return jax.tree.map(
            _with_sharding, nn.meta.unbox(boxed), self.shardings_of(boxed)
        )

    def sharded_row_shapes(self, shapes: PyTree) -> PyTree:
        """Returns the shapes of a padded carry or batch with their shardings."""
        return jax.tree.map(
            lambda leaf: _with_sharding(leaf, self._row_sharding(leaf)), shapes
        )

    def wrap(self, step: Step, carry: PyTree) -> Step:
        """Returns the step as it is called on the whole batch."""
        return step

    def _call_context(self) -> AbstractContextManager:
        return mesh_context(self.mesh)

    def evaluation(self) -> AbstractContextManager:
        """Returns the context of an evaluation with parameters of this partitioner."""
        return mesh_context(self.mesh) if jax.process_count() == 1 else nullcontext()

    def pad_batch_size(self, rows: int) -> int:
        """Returns the batch size padded to a multiple of the mesh and microbatches."""
        return -(-rows // self.row_multiple) * self.row_multiple

    def put_batch(self, batch: Batch) -> dict[str, jax.Array]:
        """Puts a batch on the devices, padded with rows of zeros (weight 0)."""
        rows = len(next(iter(batch.values())))
        return self.make_global_batch(
            lambda part: {name: leaf[part] for name, leaf in batch.items()}, rows
        )

    def make_global_batch(
        self, part: Callable[[slice], Batch], rows: int
    ) -> dict[str, jax.Array]:
        """Makes a global batch; every process reads the rows of its own devices.

        Args:
          part: from a slice of rows to these rows of the batch.
          rows: size of the whole batch.
        """
        padded = self.pad_batch_size(rows)
        slices = self.rows.addressable_devices_indices_map((padded,)).values()
        starts, stops, _ = zip(*(one.indices(padded) for (one,) in slices), strict=True)
        first, last = min(starts), max(stops)

        def put(leaf):
            padding = [(0, last - first - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
            filled = np.pad(leaf, padding)

            def shard(index):
                start, stop, _ = index[0].indices(padded)
                return filled[start - first : stop - first]

            shape = (padded, *leaf.shape[1:])
            return jax.make_array_from_callback(shape, self.rows, shard)

        local = part(slice(min(first, rows), min(last, rows)))
        return {name: put(leaf) for name, leaf in local.items()}

    def init_carry(self, make: Callable[[int], PyTree], rows: int) -> PyTree:
        """Makes the carry `make(batch size)`, padded, with its sharding."""
        padded = self.pad_batch_size(rows)
        return self._jit(lambda: make(padded))()

    def carry_to_checkpoint(self, carry: PyTree, rows: int) -> PyTree:
        """Returns a carry without padding rows, as checkpoints store it."""
        if self.pad_batch_size(rows) == rows:
            return carry
        if rows not in self._strip:  # compiled once, not at every save
            first = functools.partial(
                jax.tree.map, lambda leaf: leaf[:rows] if leaf.ndim else leaf
            )
            self._strip[rows] = self._jit(first)
        return self._strip[rows](carry)

    def carry_from_checkpoint(self, stored: PyTree, fresh: PyTree) -> PyTree:
        """Returns a stored carry on these devices, with padding rows of `fresh`.

        Args:
          stored: carry of a checkpoint, from any number of devices and any mode.
          fresh: initial carry of `init_carry`.
        """

        def fill(old, new):
            return jnp.concatenate([old, new[len(old) :]]) if old.ndim else old

        return self._jit(functools.partial(jax.tree.map, fill))(stored, fresh)

    def _jit(self, make: Callable) -> Callable:
        """Compiles a function whose results are sharded by rows where rows divide."""
        compiled = None

        def call(*inputs):
            nonlocal compiled
            if compiled is None:
                shapes = jax.eval_shape(make, *inputs)
                shardings = jax.tree.map(self._row_sharding, shapes)
                compiled = jax.jit(make, out_shardings=shardings)
            return compiled(*inputs)

        return call

    def _row_sharding(self, leaf) -> NamedSharding:
        divides = leaf.ndim and leaf.shape[0] % self._num_row_shards == 0
        return self.rows if divides else self.replicated

    @property
    def _num_row_shards(self) -> int:
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]


def _with_sharding(leaf, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _bytes_per_device(sharded_shapes: PyTree) -> int:
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(sharded_shapes)
    )


def make_partitioner(
    cfg: ConfigDict, *, num_microbatches: int = 1, devices: Devices = None
) -> JitPartitioner:
    """Returns the partitioner of `cfg.mode`: "jit" over a mesh, or "pmap".

    Both run the same step and store the same checkpoints.

    Args:
      cfg: the section `cfg.parallel`.
      num_microbatches: microbatches per step; the batch size is padded to a multiple.
      devices: None: all devices.

    Raises:
      UserError: unknown mode, or a mesh that does not fit the devices.
    """
    if cfg.mode not in PARTITIONERS:
        raise UserError(
            f"Unknown parallel.mode {cfg.mode!r}; choose one of "
            f"{', '.join(PARTITIONERS)}"
        )
    make = pkgutil.resolve_name(PARTITIONERS[cfg.mode])
    return make(cfg, num_microbatches=num_microbatches, devices=devices)
