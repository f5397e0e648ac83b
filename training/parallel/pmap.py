"""Data parallelism under `pmap`: every device has all parameters and some rows."""

from contextlib import AbstractContextManager, nullcontext

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner
from training.step import Step
from utils.errors import UserError


class PmapPartitioner(JitPartitioner):
    """Data parallelism under `pmap`, in one process.

    Each device has random numbers of its own, so dropout masks depend on the number of
    devices. Everything else equals `jit` up to rounding.
    """

    axis_name = "data"

    def __init__(
        self, cfg: ConfigDict, *, num_microbatches: int = 1, devices: Devices = None
    ):
        """Makes the mesh; raises UserError for axes other than `data`."""
        if (cfg.fsdp, cfg.tensor) != (1, 1):
            raise UserError(
                f"parallel.mode='pmap' with fsdp={cfg.fsdp}, tensor={cfg.tensor}: pmap "
                "keeps all parameters on every device; set parallel.mode='jit'"
            )
        if jax.process_count() > 1:
            raise UserError(
                "parallel.mode='pmap' works in one process, not in "
                f"{jax.process_count()}; set parallel.mode='jit'"
            )
        super().__init__(cfg, num_microbatches=num_microbatches, devices=devices)

    def wrap(self, step: Step, carry: PyTree) -> Step:
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, carry)
        mapped = self._map(step, (None, axes, 0), (None, axes, None))

        def split(leaf):  # [B, ...] to [N, B / N, ...] for N devices
            shape = self._num_row_shards, -1, *leaf.shape[1:]
            return leaf.reshape(shape) if leaf.ndim else leaf

        def merge(leaf):
            return leaf.reshape(-1, *leaf.shape[2:]) if leaf.ndim else leaf

        def call(state, carry, batch):
            split_inputs = jax.tree.map(split, (carry, batch))
            state, carry, metrics = mapped(state, *split_inputs)
            return state, jax.tree.map(merge, carry), metrics

        return call

    def _map(self, step: Step, in_axes: tuple, out_axes: tuple) -> Step:
        """Returns the step of each device's rows, applied on all devices."""
        return jax.pmap(
            step,
            self.axis_name,
            in_axes=in_axes,
            out_axes=out_axes,
            devices=self.mesh.devices.flat,
        )

    def lower(self, step, state, carry, batch) -> jax.stages.Lowered:
        """Raises UserError, since pmap compiles only when it is called."""
        raise UserError(
            "parallel.mode='pmap' cannot be compiled ahead of time; "
            "set parallel.mode='jit'"
        )

    def _call_context(self) -> AbstractContextManager:
        return nullcontext()  # pmap has a mesh of its own
