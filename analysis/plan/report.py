"""Text of `train.py --plan`: parameters, work of a step, memory of the devices."""

import collections
import dataclasses
import math
import re

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from analysis.plan.aot_compile import CompiledStep, target_memory_gb, topology_devices
from analysis.plan.memory import device_memory, partitioner_for, working_bytes
from analysis.plan.step import LABELS, StepSpec, dummy_tokenizers
from experiment import setup
from training.parallel.mesh import AXES, Devices
from training.parallel.partitioner import JitPartitioner
from utils.errors import UserError
from utils.text_tables import align_columns

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
      target: devices that a step is compiled for (see aot_compile.py).

    Raises UserError for arguments or a config that are invalid.
    """
    if capacity is not None and not 0 < capacity < math.inf:
        raise UserError(f"--device_memory={capacity:g} must be in GB, greater than 0")
    step = StepSpec.from_config(cfg)
    partitioner = partitioner_for(cfg, choose_devices(cfg, devices, target))
    parts = [
        parameter_table(cfg, step.params),
        step_table(step),
        memory_table(step, partitioner, capacity),
    ]
    if target is not None:
        available = capacity or target_memory_gb(target)
        parts.append(compiled_table(step, partitioner, available))
    if partitioner.mesh.size > 1:
        parts.append(sharding_table(step, partitioner))
    return "\n\n".join(parts)


def choose_devices(cfg: ConfigDict, count: int | None, target: str | None) -> Devices:
    """Returns the devices of a target, or a number, at least what `cfg.parallel` needs.

    Raises UserError for a number below one, or above that of the target's devices.
    """
    if target is not None:
        devices = topology_devices(target)
        if count is not None and not 1 <= count <= len(devices):
            raise UserError(f"--devices={count}: --target={target} has {len(devices)}")
        return devices[:count]
    if count is None:
        axes = (cfg.parallel.data, cfg.parallel.fsdp, cfg.parallel.tensor)
        return math.prod(max(1, size) for size in axes)
    if count < 1:
        raise UserError(f"--devices={count} must be at least 1")
    return count


def named_shapes(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """Returns name and shape of each parameter; equal layers share a name."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        rows.append((LAYER_NUMBER.sub("_*", "/".join(names)), leaf.shape))
    return rows


def parameter_table(cfg: ConfigDict, params: PyTree) -> str:
    """Formats a config's parameters, a line for equal ones, and their sum."""
    total = setup.num_parameters(params)
    rows = [
        (name, " x ".join(map(str, shape)), f"x{n}", f"{n * math.prod(shape):,}")
        for (name, shape), n in collections.Counter(named_shapes(params)).items()
    ]
    rows.append(("parameters", "", "", f"{total:,}"))
    tokenizers = dummy_tokenizers(cfg)
    vocab_size = tokenizers["text"].vocab_size
    sides = [s for s in ("label", "tag") if s in tokenizers and tokenizers[s].names]
    lines = [
        *align_columns(rows, "<>>>"),
        f"{ADAM * total * 4 / 2**30:.2f} GiB with Adam's two moments, in float32",
        f"vocabulary of {vocab_size:,} tokens, the largest that it may have",
        *(f"{len(LABELS)} {side}s, the fewest that there may be" for side in sides),
    ]
    return "\n".join(lines)


def step_table(step: StepSpec) -> str:
    """Formats the batch shapes, tokens and FLOPs of a step."""
    flops = step.flops()
    model_class, unit = step.setup.experiment.task.model_class, step.unit
    shapes, longest = "1 batch shape, 1 compiled program: ", ""
    if step.num_programs > 1 or model_class == "Seq2Seq":
        shapes = f"at most {step.num_programs} batch shapes, each compiled once; "
        shapes += "the longest: "
        longest = " in the longest batch, without padding"
    sides = " on each side" if model_class == "Seq2Seq" else ""
    per_unit = f"{flops / step.num_predicted:.4g} per {unit.removesuffix('s')}"
    return (
        f"shapes      {shapes}{step.batch_size:,} examples of {step.length:,} tokens"
        f"{sides}\n"
        f"{unit:11} {step.num_predicted:,} predicted per step{longest}\n"
        f"FLOPs       {flops:.4g} per step, {per_unit}, forward and backward"
    )


def memory_table(
    step: StepSpec, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """Formats the memory of a device and whether it is expected to fit."""
    exact, sizes = device_memory(step, partitioner), partitioner.mesh.shape
    working = working_bytes(step, partitioner)
    total = exact.total + working
    mesh = " x ".join(f"{axis}={sizes[axis]}" for axis in AXES)
    remark = "estimate: gradients and activations, without fusion"
    lines = [
        f"on each of {partitioner.mesh.size} devices ({step.cfg.parallel.mode}, {mesh})"
        ", in GB",
        *(format_gb(*item) for item in dataclasses.asdict(exact).items()),
        format_gb("working", working, remark),
        format_gb("total", total),
    ]
    if capacity is not None:
        lines.append(format_fit(exact.total / 1e9, total / 1e9, capacity))
    return "\n".join(lines)


def format_gb(name: str, size: int, remark: str = "") -> str:
    """Formats a line of a table of memory, given bytes."""
    return f"{name:11} {size / 1e9:10.4f}" + (f"  {remark}" if remark else "")


def compiled_table(
    step: StepSpec, partitioner: JitPartitioner, capacity: float | None
) -> str:
    """Formats the memory that the compiler reports, and whether the step fits."""
    device = partitioner.mesh.devices.flat[0]
    head = f"compiled for {partitioner.mesh.size} x {device.device_kind}, in GB on each"
    try:
        compiled = CompiledStep.compile(step, partitioner)
    except MemoryError as error:
        return f"{head}\ndoes not fit: {error}"
    seconds = f"compiled in {compiled.seconds:.1f} s"
    state = "parameters, optimizer, carry and batch"
    lines = [
        head,
        format_gb("state", compiled.state_bytes, state),
        format_gb("working", compiled.working_bytes),
        format_gb("total", compiled.total_bytes, seconds),
    ]
    if capacity is not None:
        free = capacity - compiled.total_bytes / 1e9
        lines.append(
            f"fits into {capacity:.4g} GB: {free:.4f} GB are free"
            if free >= 0
            else f"does not fit into {capacity:.4g} GB: {-free:.4f} GB too much"
        )
        if device.platform in ("cuda", "gpu"):
            lines.append(
                "JAX takes 0.75 of a GPU's memory, or XLA_PYTHON_CLIENT_MEM_FRACTION"
            )
    return "\n".join(lines)


def format_fit(exact: float, total: float, capacity: float) -> str:
    """Says whether a plan fits into a memory, and how certain that is (all in GB)."""
    if exact > capacity:
        return f"does not fit into {capacity:g} GB: {exact:.4f} GB are always allocated"
    free = capacity - total
    if free < 0:
        return f"is not expected to fit into {capacity:g} GB: {-free:.4f} GB too much"
    return f"is expected to fit into {capacity:g} GB: {free:.4f} GB are free"


def sharding_table(step: StepSpec, partitioner: JitPartitioner) -> str:
    """Formats the mesh axes that shard each large parameter, equal ones as one."""
    mesh, shards = partitioner.mesh.shape, collections.Counter()
    shardings = jax.tree.leaves(partitioner.shardings_of(step.params))
    for (name, shape), sharding in zip(
        named_shapes(step.params), shardings, strict=True
    ):
        axes = (*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
        spec = tuple(axis if mesh.get(axis, 1) > 1 else None for axis in axes)
        num_shards = math.prod(shape) // math.prod(sharding.shard_shape(shape))
        shards[name, shape, spec, num_shards] += math.prod(shape)
    rows = []
    for (name, shape, spec, num_shards), size in shards.items():
        if size >= LARGE * shards.total():
            sides = [
                f"{length:,}" + (f" over {axis}" if axis else "")
                for length, axis in zip(shape, spec, strict=True)
            ]
            share = f"1/{num_shards} of it on each" if num_shards > 1 else "replicated"
            rows.append((name, " x ".join(sides), share))
    head = f"shardings of parameters that are {LARGE:.0%} of all or more"
    return "\n".join([head, *align_columns(rows, "<<<")])
