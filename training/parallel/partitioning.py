"""Devices: with the four files beside it the only one that knows them.

meshes.py            axes of devices, and where the numbers of a state lie
jit_partitioner.py   parallel.mode="jit": one program that the compiler spreads
pmap_partitioner.py  parallel.mode="pmap": a program on every device
rows.py              the rows of batches and carries, dealt to devices

The same step runs in either mode, and what is stored is the same: whole arrays, of
a carry the rows of the batch and none that fill it up.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from ml_collections import ConfigDict

from training.parallel.mesh import Devices
from training.parallel.partitioner import Partitioner
from training.parallel.pmap import MappedPartitioner
from utils.errors import UserError

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
