"""Devices: the only file that names a mesh, a sharding or pmap.

A mesh has axes (data, fsdp, tensor). Rows of a batch and of a carry are spread
over data x fsdp, parameters and optimiser state by the names of their logical
axes. One device is the mesh 1 x 1 x 1, so there is one path for all.

The same step runs in one of two modes. Under jit one program sees all rows and
the compiler spreads it. Under pmap every device runs a program of its own on its
rows, with all parameters. What is stored is the same: whole arrays, of a carry
the rows of the batch and none that fill it up.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from ml_collections import ConfigDict

from errors import UserError
from training.step import Step

Batch = dict[str, np.ndarray]
Devices = Sequence[jax.Device] | int | None  # a number: of a plan, none is there

ROWS = ("data", "fsdp")
AXES = ("data", "fsdp", "tensor")

AnyMesh = Mesh | AbstractMesh

RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    # Of what a recurrence steps through. Spread over tensor on a mesh of 2 x 2 x 2,
    # XLA's gradient of the loop is wrong by a percent (jaxlib 0.10.2).
    ("gates", None),
    ("heads", "tensor"),
    ("kv", None),
    ("norm", None),
)


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
        wanted = nn.logical_to_mesh_sharding(
            nn.get_partition_spec(boxed), self.mesh, RULES
        )
        return jax.tree.map(self._divisible, nn.meta.unbox(boxed), wanted)

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

    def _divisible(self, leaf, sharding: NamedSharding) -> NamedSharding:
        axes = [
            axis if axis and leaf.shape[i] % self.mesh.shape[axis] == 0 else None
            for i, axis in enumerate(sharding.spec)
        ]
        return NamedSharding(self.mesh, P(*axes))

    def compile(self, step: Step, state: PyTree, carry: PyTree, *, shapes: int) -> Step:
        """The step under jit; it consumes the state and the carry it is given.

        What comes out lies where `state` and `carry` lie, so that a step's
        results fit the next without compiling again.

        Args:
          shapes: of batches, and so the number of programs. More of them are a
            mistake of ours, which stops a run rather than make it slow.
        """
        places = jax.tree.map(lambda leaf: leaf.sharding, (state, carry))
        jitted = jax.jit(
            self._spread(step, carry),
            donate_argnums=(0, 1),
            out_shardings=(*places, self.replicated),
        )

        def call(state, carry, batch):
            with self._surroundings():
                found = jitted(state, carry, batch)
            if jitted._cache_size() > shapes:
                raise RuntimeError(f"the step was compiled more than {shapes} times")
            return found

        call.cache_size = jitted._cache_size
        return call

    def _spread(self, step: Step, carry: PyTree) -> Step:
        """The step as all devices take it together."""
        return step

    def _surroundings(self) -> AbstractContextManager:
        """Of a call."""
        return jax.set_mesh(self.mesh)

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

        def place(leaf):
            divides = leaf.ndim and leaf.shape[0] % self._num_row_shards == 0
            return self.rows if divides else self.replicated

        compiled = None

        def call(*inputs):
            nonlocal compiled
            if compiled is None:
                places = jax.tree.map(place, jax.eval_shape(make, *inputs))
                compiled = jax.jit(make, out_shardings=places)
            return compiled(*inputs)

        return call

    @property
    def _num_row_shards(self) -> int:
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]


class MappedPartitioner(Partitioner):
    """The same under pmap: data parallel, each device its own program.

    A device draws random numbers of its own, so dropout depends on how many there
    are; all else is the same to rounding.
    """

    axis_name = "data"

    def __init__(self, cfg: ConfigDict, *, parts: int = 1, devices: Devices = None):
        """As of a `Partitioner`; UserError also for other axes than data."""
        if (cfg.fsdp, cfg.tensor) != (1, 1):
            raise UserError(
                f"parallel.mode='pmap' with fsdp={cfg.fsdp}, tensor={cfg.tensor}: it "
                "has every parameter on every device; parallel.mode='jit' spreads them"
            )
        if jax.process_count() > 1:
            raise UserError(
                "parallel.mode='pmap' is for the devices of one process, and these are "
                f"{jax.process_count()}: set parallel.mode='jit'"
            )
        super().__init__(cfg, parts=parts, devices=devices)

    def _spread(self, step: Step, carry: PyTree) -> Step:
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, carry)
        mapped = jax.pmap(
            step,
            self.axis_name,
            in_axes=(None, axes, 0),
            out_axes=(None, axes, None),
            devices=self.mesh.devices.flat,
        )
        count = self._num_row_shards

        def call(state, carry, batch):
            state, carry, pairs = mapped(
                state, dealt(carry, count), dealt(batch, count)
            )
            return state, gathered(carry), pairs

        return call

    def _surroundings(self) -> AbstractContextManager:
        return nullcontext()  # pmap has a mesh of its own


MODES = {"jit": Partitioner, "pmap": MappedPartitioner}


def make_partitioner(
    cfg: ConfigDict, *, parts: int = 1, devices: Devices = None
) -> Partitioner:
    """The partitioner of `cfg.mode`.

    Args:
      cfg: the experiment's `cfg.parallel`.
      parts: of a batch, in a step.
      devices: None: all there are.

    Raises UserError for a mode or a mesh that cannot be.
    """
    if cfg.mode not in MODES:
        raise UserError(f"parallel.mode={cfg.mode!r}: there are {', '.join(MODES)}")
    return MODES[cfg.mode](cfg, parts=parts, devices=devices)


class Agreement:
    """One answer of all processes to a question that each may answer otherwise.

    `agree(answer)` says whether any said yes the time before, so that nothing waits
    for an answer that is still on its way: the devices add up while they train. All
    must call it equally often.
    """

    def __init__(self):
        mesh = Mesh(np.asarray(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
        self._places = NamedSharding(mesh, P("all"))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
        self._before: jax.Array | None = None

    def __call__(self, answer: bool) -> bool:
        """Whether any process said yes when it was asked before."""
        count = self._places.mesh.size

        def own(index):
            del index
            return np.full(1, answer)

        votes = jax.make_array_from_callback((count,), self._places, own)
        found, self._before = self._before, self._any(votes)
        return found is not None and bool(found)


def at_hand(tree: PyTree) -> PyTree:
    """Whole arrays that this process can use without the others.

    In one process nothing changes. In several each leaf is copied to every device,
    and what comes back is the copy of this process's first.
    """
    if jax.process_count() == 1:
        return tree

    def whole(leaf):
        place = NamedSharding(leaf.sharding.mesh, P())
        return jax.jit(lambda x: x, out_shardings=place)(leaf).addressable_data(0)

    return jax.tree.map(whole, tree)


def first_rows(tree: PyTree, rows: int) -> PyTree:
    """Leaves [B, ...] without those that follow; those without rows as they are."""
    return jax.tree.map(lambda leaf: leaf[:rows] if leaf.ndim else leaf, tree)


def dealt(tree: PyTree, count: int) -> PyTree:
    """Leaves [B, ...] as [count, B / count, ...]; those without rows as they are."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]) if leaf.ndim else leaf,
        tree,
    )


def gathered(tree: PyTree) -> PyTree:
    """What was `dealt`."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]) if leaf.ndim else leaf, tree
    )


def make_mesh(data: int, fsdp: int, tensor: int, devices: Devices = None) -> AnyMesh:
    """The mesh over all devices; one axis may be -1 and takes what is left."""
    there = devices if isinstance(devices, int) else len(devices or jax.devices())
    sizes = [data, fsdp, tensor]
    named = f"parallel.data={data} x fsdp={fsdp} x tensor={tensor}"
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{named}: sizes are 1 or more, at most one of them -1")
    if -1 in sizes:
        others = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, there // others)
    if math.prod(sizes) != there:
        raise UserError(f"{named} does not make the {there} devices there are")
    types = (AxisType.Auto,) * 3
    if isinstance(devices, int):
        return AbstractMesh(tuple(sizes), AXES, axis_types=types)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
