"""Memory of each device in a training step, exact or estimated without a compiler.

What stays from step to step follows from shapes and shardings. Gradients and
activations are estimated from the liveness of the arrays of a jaxpr: an array lives
from the operation that makes it to the last one that uses it, in the order in which
operations were traced (for a gradient: forward, then backward). Aliases (a broadcast,
a change of shape or type) take no memory. A compiler fuses and reorders operations and
pads arrays, so this is an estimate, but it needs no compiler and no device.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from analysis.plan.step import StepSpec
from models.attention.dispatch import SUPPORTED_DEVICES
from training.parallel.mesh import Devices
from training.parallel.partitioner import JitPartitioner, make_partitioner

ALIASES = (  # operations that compilers fuse into those that read their results
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"),
    *("convert_element_type", "copy", "stop_gradient", "bitcast_convert_type"),
)
FREE_OPS = ("iota", "random_wrap", "random_unwrap", "random_seed")
LOOPS = ("scan", "while")  # their results stay alive during an iteration

Sizes = dict[int, int]  # bytes by the id of a variable


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


def peak_bytes(function: Callable, *inputs: PyTree, result_bytes: PyTree = None) -> int:
    """Estimates the peak memory of the arrays a function makes, without its inputs.

    `result_bytes` replaces the bytes of its results that their shapes say.
    """
    jaxpr = jax.make_jaxpr(function)(*inputs).jaxpr
    overrides: Sizes = {}
    if result_bytes is not None:
        bases, leaves = _alias_bases(jaxpr), jax.tree.leaves(result_bytes)
        for variable, size in zip(jaxpr.outvars, leaves, strict=True):
            overrides |= dict.fromkeys(bases.get(id(variable), ()), size)
    return _peak(jaxpr, overrides)


def _variable_bytes(variable) -> int:
    """Returns the bytes of a variable; those of random keys count as 0."""
    aval = variable.aval
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize


def _peak(jaxpr, overrides: Sizes) -> int:
    """Returns the peak of a jaxpr; `overrides` replace the sizes of some variables."""
    bases = _alias_bases(jaxpr)
    last_use = {}
    for index, eqn in enumerate(jaxpr.eqns):
        last_use |= {base: index for v in eqn.invars for base in bases.get(id(v), ())}
    last_use |= {base: -1 for v in jaxpr.outvars for base in bases.get(id(v), ())}
    alive: Sizes = {}
    total = peak = 0
    for index, eqn in enumerate(jaxpr.eqns):
        made = {
            id(v): overrides.get(id(v), _variable_bytes(v))
            for v in eqn.outvars
            if bases.get(id(v)) == (id(v),)
        }
        outputs = sum(made.values())
        inner = max((_peak(j, {}) for j in _inner_jaxprs(eqn)), default=0)
        is_loop = eqn.primitive.name in LOOPS
        peak = max(peak, total + (outputs + inner if is_loop else max(outputs, inner)))
        total, alive = total + outputs, alive | made
        used = {base for v in eqn.invars for base in bases.get(id(v), ())}
        for base in used | made.keys():
            if last_use.get(base, index) == index:
                total -= alive.pop(base, 0)
    return peak


def _alias_bases(jaxpr) -> dict[int, tuple[int, ...]]:
    """Maps each variable made in a jaxpr to those whose memory it aliases."""
    bases: dict[int, tuple[int, ...]] = {}
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        for v in eqn.outvars:
            own = () if name in FREE_OPS else (id(v),)
            is_alias = name in ALIASES
            bases[id(v)] = bases.get(id(eqn.invars[0]), ()) if is_alias else own
    return bases


def _inner_jaxprs(eqn) -> list:
    """Returns the jaxprs among the parameters of an operation."""
    items = []
    for value in eqn.params.values():
        items += value if isinstance(value, tuple | list) else (value,)
    opened = [getattr(item, "jaxpr", item) for item in items]
    return [item for item in opened if hasattr(item, "eqns")]
