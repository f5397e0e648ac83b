"""A program on every device, each with rows of its own and all parameters."""

from contextlib import AbstractContextManager, nullcontext

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from training.parallel.device_rows import dealt, gathered
from training.parallel.mesh import Devices
from training.parallel.partitioner import Partitioner
from training.step import Step
from utils.errors import UserError


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

    def lower(self, step, state, carry, batch) -> jax.stages.Lowered:
        """Raises UserError: pmap makes its program when it is called."""
        raise UserError(
            "parallel.mode='pmap' is not compiled for devices that are not there; "
            "parallel.mode='jit' is"
        )

    def _surroundings(self) -> AbstractContextManager:
        return nullcontext()  # pmap has a mesh of its own
