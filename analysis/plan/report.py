"""Text of `train.py --plan`: parameters, work of a step, memory of the devices."""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from analysis.plan.aot_compile import CompiledStep, target_memory_gb, topology_devices
from analysis.plan.memory import (
    device_memory,
    num_devices,
    partitioner_for,
    working_bytes,
)
from analysis.plan.step import StepSpec, dummy_tokenizers
from experiment import setup
from experiment.build import is_language_modeling
from training.parallel.mesh import AXES
from training.parallel.partitioner import JitPartitioner
from utils.errors import UserError

LARGE = 0.01  # share of all parameters from which a parameter's sharding is listed
LAYER_NUMBER = re.compile(r"_(\d+)(?=/|$)")  # of layers_3
ADAM = 3  # arrays kept for each parameter by Adam: itself and two moments


def report(
    cfg: ConfigDict,
    devices: int | None = None,
    capacity: float | None = None,
    target: str | None = None,
) -> str:
    """Formats the whole plan of a config, without data or devices.

    Args:
      devices: None: as few as `cfg.parallel` needs, or all of the target's.
      capacity: memory of a device in GB; None: unknown.
      target: devices that a step is compiled for (see aot_compile.py); None: it is
        not compiled.

    Raises UserError for arguments or a config that are invalid.
    """
    if capacity is not None and not 0 < capacity < math.inf:
        raise UserError(f"--device_memory={capacity:g} must be in GB, greater than 0")
    targets = None if target is None else target_devices(target, devices)
    count = num_devices(cfg, devices) if targets is None else len(targets)
    partitioner = partitioner_for(cfg, targets or count)
    step = StepSpec.from_config(cfg)
    parts = [
        parameter_table(cfg, step.params),
        step_table(step),
        memory_table(step, partitioner, capacity),
    ]
    if target is not None:
        available = capacity or target_memory_gb(target)
        parts.append(compiled_table(step, partitioner, available))
    if count > 1:
        parts.append(sharding_table(step, partitioner))
    return "\n\n".join(parts)


def target_devices(target: str, count: int | None) -> Sequence[jax.Device]:
    """Returns the first `count` devices of a target; None: all.

    Raises UserError where it has fewer.
    """
    devices = topology_devices(target)
    if count is not None and not 1 <= count <= len(devices):
        raise UserError(f"--devices={count}: --target={target} has {len(devices)}")
    return devices[:count]


def named_shapes(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """Returns name and shape of each parameter; equal layers share a name."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        rows.append((LAYER_NUMBER.sub("_*", "/".join(names)), leaf.shape))
    return rows


def parameter_table(cfg: ConfigDict, params: PyTree) -> str:
    """Formats a config's parameters, a line for equal ones, and their sum."""
    lines = [
        (name, " x ".join(map(str, shape)), f"x{count}", f"{count * size:,}")
        for (name, shape), count in collections.Counter(named_shapes(params)).items()
        for size in [math.prod(shape)]
    ]
    total = setup.num_parameters(params)
    lines.append(("parameters", "", "", f"{total:,}"))
    first, second, third, fourth = (max(map(len, c)) for c in zip(*lines, strict=True))
    text = [
        f"{name:{first}}  {shape:>{second}}  {count:>{third}}  {size:>{fourth}}"
        for name, shape, count, size in lines
    ]
    gib = ADAM * total * 4 / 2**30
    text.append(f"{gib:.2f} GiB with Adam's two moments, in float32")
    vocab_size = dummy_tokenizers(cfg)["text"].vocab_size
    text.append(f"vocabulary of {vocab_size:,} tokens, the largest that it may have")
    return "\n".join(text)


def step_table(step: StepSpec) -> str:
    """Formats the batch shapes, tokens and FLOPs of a step."""
    flops = step.flops()
    shape = f"{step.batch_size:,} examples of {step.length:,} tokens"
    if is_language_modeling(step.cfg):
        shapes, tokens = f"1 batch shape, 1 compiled program: {shape}", ""
    else:
        shapes = f"at most {step.num_programs} batch shapes, each compiled once"
        shapes += f"; the longest: {shape} on each side"
        tokens = " in the longest batch, without padding"
    lines = {
        "shapes": shapes,
        "tokens": f"{step.tokens:,} predicted per step{tokens}",
        "FLOPs": f"{flops:.4g} per step, {flops / step.tokens:.4g} per token, forward "
        "and backward",
    }
    return "\n".join(f"{name:11} {text}" for name, text in lines.items())


def memory_table(
    step: StepSpec, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """Formats the memory of a device and whether it is expected to fit."""
    exact = device_memory(step, partitioner)
    working = working_bytes(step, partitioner)
    total = exact.total + working
    sizes = partitioner.mesh.shape
    mesh = " x ".join(f"{axis}={sizes[axis]}" for axis in AXES)
    mode = step.cfg.parallel.mode
    lines = [f"on each of {partitioner.mesh.size} devices ({mode}, {mesh}), in GB"]
    for name, size in dataclasses.asdict(exact).items():
        lines.append(f"{name:11} {size / 1e9:10.4f}")
    lines.append(
        f"{'working':11} {working / 1e9:10.4f}  estimate: gradients and activations, "
        "without fusion"
    )
    lines.append(f"{'total':11} {total / 1e9:10.4f}")
    if capacity is not None:
        lines.append(format_fit(exact.total / 1e9, total / 1e9, capacity))
    return "\n".join(lines)


def compiled_table(
    step: StepSpec, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """Formats the memory that the compiler reports, and whether the step fits."""
    kind = partitioner.mesh.devices.flat[0].device_kind
    head = f"compiled for {partitioner.mesh.size} x {kind}, in GB on each"
    try:
        compiled = CompiledStep.compile(step, partitioner)
    except MemoryError as error:
        return f"{head}\ndoes not fit: {error}"
    state, working, total = (
        f"{size / 1e9:10.4f}"
        for size in (
            compiled.state_bytes,
            compiled.working_bytes,
            compiled.total_bytes,
        )
    )
    lines = [
        head,
        f"{'state':11} {state}  parameters, optimizer, carry and batch",
        f"{'working':11} {working}",
        f"{'total':11} {total}  compiled in {compiled.seconds:.1f} s",
    ]
    if capacity is not None:
        free = capacity - compiled.total_bytes / 1e9
        if free < 0:
            lines.append(
                f"does not fit into {capacity:.4g} GB: {-free:.4f} GB too much"
            )
        else:
            lines.append(f"fits into {capacity:.4g} GB: {free:.4f} GB are free")
        if partitioner.mesh.devices.flat[0].platform in ("cuda", "gpu"):
            lines.append(
                "JAX takes 0.75 of a GPU's memory, or XLA_PYTHON_CLIENT_MEM_FRACTION"
            )
    return "\n".join(lines)


def format_fit(exact: float, total: float, capacity: float) -> str:
    """Says whether a plan fits into a memory, and how certain that is (all in GB)."""
    if exact > capacity:
        return f"does not fit into {capacity:g} GB: {exact:.4f} GB are always allocated"
    if total > capacity:
        return (
            f"is not expected to fit into {capacity:g} GB: "
            f"{total - capacity:.4f} GB too much"
        )
    return (
        f"is expected to fit into {capacity:g} GB: {capacity - total:.4f} GB are free"
    )


def sharding_table(step: StepSpec, partitioner: JitPartitioner) -> str:
    """Formats the mesh axes that shard each large parameter, equal ones as one."""
    shardings = jax.tree.leaves(partitioner.shardings_of(step.params))
    mesh = partitioner.mesh.shape
    rows = named_shapes(step.params)
    total = sum(int(np.prod(shape)) for _, shape in rows)
    sizes: dict[tuple, int] = {}
    for (name, shape), sharding in zip(rows, shardings, strict=True):
        axes = (*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
        spec = tuple(axis if mesh.get(axis, 1) > 1 else None for axis in axes)
        kind = name, shape, spec, math.prod(sharding.shard_shape(shape))
        sizes[kind] = sizes.get(kind, 0) + math.prod(shape)
    lines = []
    for (name, shape, spec, shard_size), size in sizes.items():
        if size >= LARGE * total:
            sides = [
                f"{length:,}" + (f" over {axis}" if axis else "")
                for length, axis in zip(shape, spec, strict=True)
            ]
            num_shards = math.prod(shape) // shard_size
            share = f"1/{num_shards} of it on each" if num_shards > 1 else "replicated"
            lines.append((name, " x ".join(sides), share))
    first, second = (max(len(line[i]) for line in lines) for i in (0, 1))
    head = f"shardings of parameters that are {LARGE:.0%} of all or more"
    text = [f"{a:{first}}  {b:{second}}  {c}" for a, b, c in lines]
    return "\n".join([head, *text])
