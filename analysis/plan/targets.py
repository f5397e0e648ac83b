"""Devices that need not be there, for which XLA compiles a step: `--target`.

    v5e:4x4    a slice of TPUs, by its generation and shape; needs the package libtpu
    h100:8     GPUs of a machine; needs JAX's plugin for CUDA, and no driver
    cpu        the devices of this process

What compilers know of a GPU comes from the GPU; here it comes from a table of what its
maker prints.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from utils.errors import UserError

SLICE = re.compile(r"v\d+\w*:\d+x\d+(x\d+)?")
# What libtpu would otherwise ask a machine of Google's cloud for, or write.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # others may compile beside this process
}
PLUGINS = ("xla_cuda13", "xla_cuda12")


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU, as NVIDIA's data sheets and compute capabilities describe it.

    Attributes:
      major: of its compute capability, whose minor is 0.
      multiprocessors: how many there are.
      shared: bytes of shared memory of one, of which a block may have all but 1,024.
      cache: bytes of the second level.
      clock: in GHz, at most.
      memory: in MiB.
      bandwidth: of memory, in bytes a second.
    """

    name: str
    major: int
    multiprocessors: int
    shared: int
    cache: int
    clock: float
    memory: int
    bandwidth: float


CARDS = {
    "a100": Card(
        "NVIDIA A100-SXM4-80GB", 8, 108, 167936, 40 << 20, 1.41, 81920, 2.039e12
    ),
    "h100": Card(
        "NVIDIA H100 80GB HBM3", 9, 132, 233472, 50 << 20, 1.98, 81559, 3.352e12
    ),
    "h200": Card("NVIDIA H200", 9, 132, 233472, 50 << 20, 1.98, 143771, 4.8e12),
}
# XLA's GpuTargetConfigProto.
DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {card.shared}
  shared_memory_per_block_optin: {optin}
  threads_per_core_limit: 2048 core_count: {card.multiprocessors} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {card.cache}
  clock_rate_ghz: {card.clock} device_memory_size: {memory}
  cuda_compute_capability {{ major: {card.major} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: {cuda} }}
device_description_str: "{card.name}"
"""


def devices_of(target: str) -> Sequence[jax.Device]:
    """The devices that a target names.

    Raises UserError for a name that is none, and where its compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")  # no other need be asked for
    card, _, count = target.partition(":")
    if target == "cpu":
        return jax.devices()
    if card in CARDS and re.fullmatch(r"([1-9]\d*)?", count):
        return _gpus(target, CARDS[card], int(count or 1))
    if SLICE.fullmatch(target):
        return _tpus(target)
    raise UserError(
        f"--target={target}: there are slices of TPUs such as v5e:4x4, "
        f"{', '.join(CARDS)} (several: h100:8) and cpu"
    )


def memory_of(target: str) -> float | None:
    """GB of a device; None: unknown, or its compiler refuses what does not fit."""
    card = CARDS.get(target.partition(":")[0])
    return None if card is None else card.memory * 2**20 / 1e9


def _tpus(target):
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--target={target} needs the compiler of TPUs: pip install libtpu, of the "
            "version that this JAX asks for (jax[tpu])"
        )
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    options = {"platform": "tpu"}
    if target.startswith("v4:"):  # whose two cores are one device to JAX
        options["chip_config_name"] = "megacore"
    if set(target.partition(":")[2].split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return _described(target, target, **options)


def _gpus(target, card, count):
    there = [
        name
        for name in PLUGINS
        if importlib.util.find_spec("jax_plugins")
        and importlib.util.find_spec(f"jax_plugins.{name}")
    ]
    if not there:
        raise UserError(
            f"--target={target} needs JAX's plugin for CUDA, and no GPU: pip install "
            "-r requirements/cuda.txt"
        )
    shape, cuda = f"1x1x{count}", there[0].removeprefix("xla_cuda")
    options = {"topology": shape, "target_config": described_to_xla(card, int(cuda))}
    return _described(target, shape, platform="cuda", **options)


def described_to_xla(card: Card, cuda: int) -> str:
    """What its compiler asks of a card, under a major version of CUDA."""
    return DESCRIPTION.format(
        card=card,
        optin=card.shared - 1024,
        fpus=128 if card.major > 8 else 64,
        bandwidth=int(card.bandwidth),
        memory=card.memory << 20,
        cuda=cuda,
    )


def _described(target, name, **options):
    try:
        return topologies.get_topology_desc(name, **options).devices
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--target={target}: {reason}") from error
