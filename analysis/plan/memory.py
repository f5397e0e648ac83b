"""What each device of a run would hold; none of them need be there."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from analysis.plan.liveness import peak_bytes
from analysis.plan.step import PlannedStep
from models.attention.dispatch import SUPPORTED_DEVICES
from training.optim.optimizers import make_optimizer
from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner
from training.parallel.partitioning import make_partitioner
from training.step import make_state
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Held:
    """Bytes a device holds from step to step, exactly; activations come on top."""

    parameters: int
    optimizer: int  # its state, and the mean that `optim.ema_decay` keeps
    carry: int

    @property
    def total(self) -> int:
        """Of all three."""
        return self.parameters + self.optimizer + self.carry


def num_devices(cfg: ConfigDict, asked: int | None) -> int:
    """So many as asked for; without a wish as few as `cfg.parallel` makes do with.

    Raises UserError for less than one.
    """
    if asked is None:
        axes = (cfg.parallel.data, cfg.parallel.fsdp, cfg.parallel.tensor)
        return math.prod(max(1, size) for size in axes)
    if asked < 1:
        raise UserError(f"--devices={asked}: a run needs 1 or more")
    return asked


def partitioner_of(cfg: ConfigDict, devices: Devices) -> JitPartitioner:
    """Over so many devices, or these.

    Raises UserError where `cfg.parallel` does not make so many.
    """
    return make_partitioner(
        cfg.parallel, num_microbatches=cfg.grad_accum_steps, devices=devices
    )


def held(step: PlannedStep, partitioner: JitPartitioner) -> Held:
    """What each device holds from step to step."""
    cfg, params = step.cfg, step.params
    optimizer, _ = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)

    def make(params):
        return make_state(params, optimizer, ema_decay=cfg.optim.ema_decay)

    own = partitioner.bytes_per_device(params)
    whole = partitioner.bytes_per_device(jax.eval_shape(make, params))
    rows = step.rows if step.has_streams else 1
    return Held(own, whole - own, partitioner.carry_bytes_per_device(step.carry, rows))


def working_bytes(step: PlannedStep, partitioner: JitPartitioner) -> int:
    """Gradients and activations of a device at their most, by estimate.

    Arrays live from the operation that makes them to their last use (see
    analysis/plan/liveness.py). Rows are those of a device, gradients lie as their
    parameters do; what an axis over `tensor` spreads beside them counts whole, and
    parameters that `fsdp` gathers for a layer do not count. What XLA reserves for
    small models of each architecture is 0.7 to 1.1 times the estimate on a CPU; with
    `remat` it is more there, since XLA for CPUs undoes it. Kernels of accelerators are
    taken for attention in blocks.
    """
    if step.cfg.model.get("attention_impl") in SUPPORTED_DEVICES:
        cfg = step.cfg.copy_and_resolve_references()
        cfg.model.attention_impl = "blockwise"
        step = PlannedStep.of(cfg)
    shape = partitioner.mesh.shape
    rows = partitioner.pad_batch_size(step.rows) // (shape["data"] * shape["fsdp"])
    inputs = (*step.inputs(rows), jax.ShapeDtypeStruct((), jnp.uint32))
    _, *others = jax.eval_shape(step.gradient, *inputs)
    results = (gradient_bytes(step.params, partitioner), *sizes(others))
    return peak_bytes(step.gradient, *inputs, results=results)


def gradient_bytes(params: PyTree, partitioner: JitPartitioner) -> PyTree:
    """Of each parameter's gradient, on a device."""
    return jax.tree.map(
        lambda leaf, place: (
            leaf.dtype.itemsize * math.prod(place.shard_shape(leaf.shape))
        ),
        nn.meta.unbox(params),
        partitioner.shardings_of(params),
    )


def sizes(tree: PyTree) -> PyTree:
    """Bytes of each array."""
    return jax.tree.map(lambda leaf: leaf.size * leaf.dtype.itemsize, tree)
