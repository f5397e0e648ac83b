"""What `train.py --plan` prints: parameters, a step's work, what devices hold."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from analysis.plan import parameters
from analysis.plan.aot_compile import CompiledStep
from analysis.plan.memory import held, num_devices, partitioner_of, working_bytes
from analysis.plan.step import PlannedStep
from analysis.plan.targets import devices_of, memory_of
from experiment.build import is_language_modeling
from training.parallel.mesh import AXES
from training.parallel.partitioner import JitPartitioner
from utils.errors import UserError

LARGE = 0.01  # of all parameters: what is told where it lies


def report(
    cfg: ConfigDict,
    devices: int | None = None,
    capacity: float | None = None,
    target: str | None = None,
) -> str:
    """The whole plan of a config; nothing is prepared or needs a device.

    Args:
      devices: None: as few as `cfg.parallel` makes do with, or all of the target's.
      capacity: GB of memory a device; None: unknown.
      target: devices that a step is compiled for, see targets.py; None: it
        is not compiled.

    Raises UserError for what cannot be.
    """
    if capacity is not None and not 0 < capacity < math.inf:
        raise UserError(f"--device_memory={capacity:g}: it is GB, and more than 0")
    there = None if target is None else some_devices(target, devices)
    count = num_devices(cfg, devices) if there is None else len(there)
    partitioner = partitioner_of(cfg, there or count)
    step = PlannedStep.of(cfg)
    parts = [
        parameters.table(cfg, step.params),
        step_table(step),
        memory_table(step, partitioner, capacity),
    ]
    if target is not None:
        room = capacity or memory_of(target)
        parts.append(compiled_table(step, partitioner, room))
    if count > 1:
        parts.append(places_table(step, partitioner))
    return "\n\n".join(parts)


def some_devices(target: str, count: int | None) -> Sequence[jax.Device]:
    """The first so many of a target; None: all.

    Raises UserError where it has not as many.
    """
    there = devices_of(target)
    if count is not None and not 1 <= count <= len(there):
        raise UserError(f"--devices={count}: --target={target} has {len(there)}")
    return there[:count]


def step_table(step: PlannedStep) -> str:
    """Shapes of batches, tokens and operations of a step."""
    flops = step.flops()
    shape = f"{step.rows:,} rows of {step.length:,} tokens"
    if is_language_modeling(step.cfg):
        shapes, tokens = f"1 shape of batches, so 1 program: {shape}", ""
    else:
        shapes = f"at most {step.programs} shapes of batches, so as many programs"
        shapes += f"; the longest: {shape} a side"
        tokens = " in the longest, where nothing is padding"
    lines = {
        "shapes": shapes,
        "tokens": f"{step.tokens:,} predicted in a step{tokens}",
        "FLOPs": f"{flops:.4g} in a step, {flops / step.tokens:.4g} a token, forward "
        "and backward",
    }
    return "\n".join(f"{name:11} {text}" for name, text in lines.items())


def memory_table(
    step: PlannedStep, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """What a device holds, one kind a line, and whether there is room for it."""
    exact = held(step, partitioner)
    working = working_bytes(step, partitioner)
    total = exact.total + working
    shape = partitioner.mesh.shape
    mesh = " x ".join(f"{axis}={shape[axis]}" for axis in AXES)
    mode = step.cfg.parallel.mode
    lines = [f"on each of {partitioner.mesh.size} devices ({mode}, {mesh}), in GB"]
    for name, size in dataclasses.asdict(exact).items():
        lines.append(f"{name:11} {size / 1e9:10.4f}")
    lines.append(
        f"{'working':11} {working / 1e9:10.4f}  estimate: gradients and activations "
        "from first to last use, nothing fused"
    )
    lines.append(f"{'in all':11} {total / 1e9:10.4f}")
    if capacity is not None:
        lines.append(verdict(exact.total / 1e9, total / 1e9, capacity))
    return "\n".join(lines)


def compiled_table(
    step: PlannedStep, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """What the compiler says that a device holds, and whether it fits."""
    kind = partitioner.mesh.devices.flat[0].device_kind
    head = f"compiled for {partitioner.mesh.size} x {kind}, in GB on each"
    try:
        found = CompiledStep.of(step, partitioner)
    except MemoryError as error:
        return f"{head}\ndoes not fit: {error}"
    lines = [
        head,
        f"{'held':11} {found.held / 1e9:10.4f}  parameters, optimizer, carry and batch",
        f"{'working':11} {found.working / 1e9:10.4f}",
        f"{'in all':11} {found.total / 1e9:10.4f}  compiled in {found.seconds:.1f} s",
    ]
    if capacity is not None:
        left = capacity - found.total / 1e9
        told = f"fits into {capacity:.4g} GB: {left:.4f} are left"
        if left < 0:
            told = f"does not fit into {capacity:.4g} GB: {-left:.4f} too much"
        lines.append(told)
        if partitioner.mesh.devices.flat[0].platform in ("cuda", "gpu"):
            lines.append(
                "JAX takes 0.75 of a GPU's memory, or XLA_PYTHON_CLIENT_MEM_FRACTION"
            )
    return "\n".join(lines)


def verdict(exact: float, total: float, capacity: float) -> str:
    """Whether so many GB fit, and how sure that is."""
    if exact > capacity:
        return f"does not fit into {capacity:g} GB: {exact:.4f} are held at all times"
    if total > capacity:
        return (
            f"is not expected to fit into {capacity:g} GB: "
            f"{total - capacity:.4f} too much"
        )
    return f"is expected to fit into {capacity:g} GB: {capacity - total:.4f} are left"


def places_table(step: PlannedStep, partitioner: JitPartitioner) -> str:
    """Over which axes of the mesh each large parameter lies, equal ones as one."""
    places = jax.tree.leaves(partitioner.shardings_of(step.params))
    sizes = partitioner.mesh.shape
    rows = parameters.named(step.params)
    total = sum(int(np.prod(shape)) for _, shape in rows)
    found: dict[tuple, int] = {}
    for (name, shape), place in zip(rows, places, strict=True):
        axes = (*place.spec, *[None] * (len(shape) - len(place.spec)))
        spec = tuple(axis if sizes.get(axis, 1) > 1 else None for axis in axes)
        kind = name, shape, spec, math.prod(place.shard_shape(shape))
        found[kind] = found.get(kind, 0) + math.prod(shape)
    lines = []
    for (name, shape, spec, own), size in found.items():
        if size >= LARGE * total:
            sides = [
                f"{length:,}" + (f" over {axis}" if axis else "")
                for length, axis in zip(shape, spec, strict=True)
            ]
            share = math.prod(shape) // own
            told = f"1/{share} of it on each" if share > 1 else "whole on each"
            lines.append((name, " x ".join(sides), told))
    first, second = (max(len(line[i]) for line in lines) for i in (0, 1))
    head = f"where parameters lie that are {LARGE:.0%} of all or more"
    text = [f"{a:{first}}  {b:{second}}  {c}" for a, b, c in lines]
    return "\n".join([head, *text])
