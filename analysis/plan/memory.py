"""Memory of each device in a training step, exact or estimated without a compiler.

What stays from step to step follows from shapes and shardings. Gradients and
activations are estimated by `utils/memory.py`, which needs no device.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from analysis.plan.step import StepSpec
from models.attention.dispatch import SUPPORTED_DEVICES
from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner, make_partitioner
from utils.memory import peak_bytes


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """Bytes that a device holds from step to step, exact, without activations."""

    parameters: int
    optimizer: int  # its state, and the average that `optim.ema_decay` keeps
    carry: int

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.carry


def partitioner_for(cfg: ConfigDict, devices: Devices) -> JitPartitioner:
    """Returns a config's partitioner. Raises UserError for devices that do not fit."""
    return make_partitioner(
        cfg.parallel, num_microbatches=cfg.grad_accum_steps, devices=devices
    )


def device_memory(step: StepSpec, partitioner: JitPartitioner) -> DeviceMemory:
    """Computes the memory that each device holds from step to step."""
    parameters = partitioner.bytes_per_device(step.params)
    state = partitioner.bytes_per_device(step.state_shapes())
    batch_size = step.batch_size if step.has_carry else 1
    carry = partitioner.carry_bytes_per_device(step.carry, batch_size)
    return DeviceMemory(parameters, state - parameters, carry)


def working_bytes(step: StepSpec, partitioner: JitPartitioner) -> int:
    """Estimates the peak of gradients and activations on a device.

    The batch is a device's share, and gradients are sharded as their parameters are.
    Other arrays that the `tensor` axis shards count whole, and parameters that `fsdp`
    gathers for a layer do not count. XLA on a CPU reserves 0.7 to 1.1 times the
    estimate for small models of each architecture, and more with `remat`, which XLA
    undoes there. Accelerator kernels are estimated as blockwise attention.
    """
    if step.cfg.model.get("attention_impl") in SUPPORTED_DEVICES:
        cfg = step.cfg.copy_and_resolve_references()
        cfg.model.attention_impl = "blockwise"
        step = StepSpec.from_config(cfg)
    mesh = partitioner.mesh.shape
    padded = partitioner.pad_batch_size(step.batch_size)
    inputs = (
        *step.input_shapes(padded // (mesh["data"] * mesh["fsdp"])),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )
    _, *others = jax.eval_shape(step.gradient, *inputs)
    other_bytes = jax.tree.map(lambda leaf: leaf.size * leaf.dtype.itemsize, others)
    gradient_bytes = jax.tree.map(
        lambda leaf, sharding: (
            leaf.dtype.itemsize * math.prod(sharding.shard_shape(leaf.shape))
        ),
        nn.meta.unbox(step.params),
        partitioner.shardings_of(step.params),
    )
    result_bytes = (gradient_bytes, *other_bytes)
    return peak_bytes(step.gradient, *inputs, result_bytes=result_bytes)
