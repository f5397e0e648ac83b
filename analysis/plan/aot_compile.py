"""Ahead-of-time compilation of a training step, for devices that need not exist here.

`train.py --plan --target=NAME` names them:

    v5e:4x4    a TPU slice, by its generation and shape; needs the package libtpu
    h100:8     the GPUs of a machine; needs JAX's CUDA plugin, but no driver
    cpu        the devices of this process

A compiler reads the properties of a GPU from its driver; here they come from a table
of NVIDIA's published figures.
"""

import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from analysis.plan.step import StepSpec
from training.parallel.partitioner import JitPartitioner
from utils.errors import UserError

TPU_SLICE = re.compile(r"v\d+\w*:\d+x\d+(x\d+)?")
# Without these libtpu queries the metadata server of a Google Cloud machine, and logs.
LIBTPU_ENV = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # other processes may compile at the same time
}
CUDA_PLUGINS = ("xla_cuda13", "xla_cuda12")


@dataclasses.dataclass(frozen=True)
class GPUSpec:
    """Properties of a GPU, from NVIDIA's data sheets and compute capabilities."""

    name: str
    major: int  # of the compute capability, whose minor version is 0
    multiprocessors: int  # number of streaming multiprocessors
    shared_bytes: int  # shared memory of one of them; a block may use all but 1,024
    l2_bytes: int  # size of the L2 cache
    clock_ghz: float  # the highest clock rate
    memory_mib: int  # size of the device memory
    bandwidth: float  # of the device memory, in bytes/s


GPUS = {
    "a100": GPUSpec(
        "NVIDIA A100-SXM4-80GB", 8, 108, 167936, 40 << 20, 1.41, 81920, 2.039e12
    ),
    "h100": GPUSpec(
        "NVIDIA H100 80GB HBM3", 9, 132, 233472, 50 << 20, 1.98, 81559, 3.352e12
    ),
    "h200": GPUSpec("NVIDIA H200", 9, 132, 233472, 50 << 20, 1.98, 143771, 4.8e12),
}
# XLA's GpuTargetConfigProto as text.
GPU_TARGET_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {gpu.shared_bytes}
  shared_memory_per_block_optin: {optin}
  threads_per_core_limit: 2048 core_count: {gpu.multiprocessors} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {gpu.l2_bytes}
  clock_rate_ghz: {gpu.clock_ghz} device_memory_size: {memory}
  cuda_compute_capability {{ major: {gpu.major} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: {cuda} }}
device_description_str: "{gpu.name}"
"""


def topology_devices(target: str) -> Sequence[jax.Device]:
    """Returns the devices that a target names.

    Raises UserError for an unknown name, and where its compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")  # initialise no other backend
    name, _, count = target.partition(":")
    if target == "cpu":
        return jax.devices()
    if name in GPUS and re.fullmatch(r"([1-9]\d*)?", count):
        topology = f"1x1x{int(count or 1)}"
        options = _gpu_options(target, GPUS[name]) | {"topology": topology}
    elif TPU_SLICE.fullmatch(target):
        topology, options = target, _tpu_options(target)
    else:
        raise UserError(
            f"Unknown --target={target}; choose a TPU slice such as v5e:4x4, "
            f"{', '.join(GPUS)} (several: h100:8) or cpu"
        )
    try:
        return topologies.get_topology_desc(topology, **options).devices
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--target={target}: {reason}") from error


def target_memory_gb(target: str) -> float | None:
    """Returns the memory of a GPU in GB; None: a TPU, whose compiler checks the fit."""
    gpu = GPUS.get(target.partition(":")[0])
    return None if gpu is None else gpu.memory_mib * 2**20 / 1e9


def _tpu_options(target):
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--target={target} needs the TPU compiler: pip install libtpu, in the "
            "version that this JAX requires (jax[tpu])"
        )
    for name, value in LIBTPU_ENV.items():
        os.environ.setdefault(name, value)
    options = {"platform": "tpu"}
    if target.startswith("v4:"):  # JAX presents its two cores as one device
        options["chip_config_name"] = "megacore"
    if set(target.partition(":")[2].split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return options


def _gpu_options(target, gpu):
    installed = [
        name.removeprefix("xla_cuda")
        for name in CUDA_PLUGINS
        if importlib.util.find_spec("jax_plugins")
        and importlib.util.find_spec(f"jax_plugins.{name}")
    ]
    if not installed:
        raise UserError(
            f"--target={target} needs JAX's CUDA plugin, but no GPU: pip install "
            "-r requirements/cuda.txt"
        )
    config = gpu_target_config(gpu, int(installed[0]))
    return {"platform": "cuda", "target_config": config}


def gpu_target_config(gpu: GPUSpec, cuda: int) -> str:
    """Formats a GPU's properties for XLA, under a major version of CUDA."""
    return GPU_TARGET_CONFIG.format(
        gpu=gpu,
        optin=gpu.shared_bytes - 1024,
        fpus=128 if gpu.major > 8 else 64,
        bandwidth=int(gpu.bandwidth),
        memory=gpu.memory_mib << 20,
        cuda=cuda,
    )


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled training step and the bytes it needs on each device."""

    program: jax.stages.Compiled
    state_bytes: int  # of parameters, optimizer state, carry and batch
    working_bytes: int  # of what exists only during a step
    seconds: float  # spent on compilation

    @property
    def total_bytes(self) -> int:
        return self.state_bytes + self.working_bytes

    @classmethod
    def compile(cls, step: StepSpec, partitioner: JitPartitioner) -> "CompiledStep":
        """Compiles the step on the largest batch.

        Raises MemoryError where the compiler reports that it does not fit, and
        UserError under pmap.
        """
        lowered = lower(step, partitioner)
        begin = time.perf_counter()
        try:
            program = compile_lowered(lowered)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(out_of_memory_reason(str(error))) from error
        seconds = time.perf_counter() - begin
        sizes = program.memory_analysis()
        new = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        working = sizes.temp_size_in_bytes + max(new, 0)
        return cls(program, sizes.argument_size_in_bytes, working, seconds)


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a program, with cuBLAS where XLA finds no tiling for a matmul.

    XLA times tilings on the GPU; without one it may find none that is allowed.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "find output tile sizes" not in str(error):
            raise
        return lowered.compile({"xla_gpu_enable_triton_gemm": False})


def out_of_memory_reason(error: str) -> str:
    """Extracts the line of a compiler's error that names the exhausted memory."""
    lines = [line for line in error.splitlines() if "memory" in line]
    reason = lines[0].removeprefix("RESOURCE_EXHAUSTED: ") if lines else error
    if any(kind in reason for kind in ("vmem", "smem")):
        return f"a kernel's on-chip memory, not the device's: {reason[:200]}"
    return reason


def lower(step: StepSpec, partitioner: JitPartitioner) -> jax.stages.Lowered:
    """Lowers a step on the largest batch for the partitioner's devices."""
    setup = dataclasses.replace(step.setup, partitioner=partitioner)
    batch_size = partitioner.pad_batch_size(step.batch_size)
    _, *rows = step.input_shapes(batch_size)
    inputs = [partitioner.sharded_row_shapes(shapes) for shapes in rows]
    state = partitioner.sharded_shapes(step.state_shapes())
    return partitioner.lower(setup.step, state, *inputs)
