"""Allocation of a machine's devices to workers, through environment variables.

`allocate` is a pure function of the machine: it starts no process and asks no driver,
so that the sweep's own process never holds a device.
"""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.ranges import check_range

MOST_WORKERS = 1024  # each is a process
GPU_MEMORY_FRACTION = 0.9  # of a GPU, for all workers that share it
FIRST_TPU_PORT = 8476
# Number of chips of a process -> their box in the grid of a host.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
GPU_FILE = re.compile(r"nvidia(\d+)")


@dataclasses.dataclass(frozen=True)
class DeviceAllocation:
    """Devices of one worker's trials.

    Attributes:
      environment: variables to set.
      cores: CPU cores to run on; empty: all.
      kind: "tpu", "gpu" or "cpu".
      count: number of chips or GPUs, a fraction of one that is shared; 1 for CPUs.
    """

    environment: dict[str, str]
    cores: tuple[int, ...] = ()
    kind: str = "cpu"
    count: float = 1


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that this process may use.

    Attributes:
      kind: "tpu", "gpu" or "cpu": what trials compute on.
      devices: names of chips or GPUs in the form of their environment variables.
      cores: numbers of the CPU cores.
      is_in_slice: whether it is one of several hosts of a TPU slice.
    """

    kind: str
    devices: tuple[str, ...]
    cores: tuple[int, ...]
    is_in_slice: bool = False


def allocate(machine: Machine, workers: int) -> list[DeviceAllocation]:
    """Divides the devices of a machine equally among workers.

    Raises:
      UserError: there are fewer TPU chips than workers, or too many workers.
    """
    check_range("--workers", workers, 1, MOST_WORKERS)
    if workers == 1 and not machine.is_in_slice:
        count = len(machine.devices) or 1
        return [DeviceAllocation({}, kind=machine.kind, count=count)]  # as in train.py
    if machine.kind == "tpu":
        return _allocate_tpu_chips(machine.devices, workers)
    if machine.kind == "gpu":
        return _allocate_gpus(machine.devices, workers)
    return [
        DeviceAllocation(
            {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "PJRT_NPROC")}, cores
        )
        for cores in _equal_parts(machine.cores, workers)
    ]


def describe(allocations: Sequence[DeviceAllocation], population: int) -> str:
    """Describes where trials run on a machine, for --dry_run."""
    kind, count = allocations[0].kind, allocations[0].count
    devices = (
        "an equal share of the CPU cores" if kind == "cpu" else f"{count:g} {kind}"
    )
    trials = f"{population} trials as one program" if population > 1 else "a trial"
    return f"{len(allocations)} at once on this machine: {trials} on {devices} each"


def _allocate_tpu_chips(chips: Sequence[str], workers: int) -> list[DeviceAllocation]:
    """Gives each worker 1, 2, 4 or 8 neighbouring chips, which cannot be shared."""
    if workers > len(chips):
        raise UserError(f"--workers={workers}: there are {len(chips)} TPU chips")
    size = max(size for size in TPU_BOUNDS if size * workers <= len(chips))
    return [
        DeviceAllocation(
            {
                "TPU_VISIBLE_CHIPS": ",".join(part),
                "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[size],
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
                "TPU_PROCESS_PORT": str(port),
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            },
            kind="tpu",
            count=size,
        )
        for port, part in enumerate(_equal_parts(chips, workers, size), FIRST_TPU_PORT)
    ]


def _allocate_gpus(gpus: Sequence[str], workers: int) -> list[DeviceAllocation]:
    """Gives each worker whole GPUs, or a part of one's memory if there are too few."""
    shared, sharers = {}, math.ceil(workers / len(gpus))
    if sharers > 1:
        fraction = GPU_MEMORY_FRACTION / sharers
        shared = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{fraction:.3f}"}
    return [
        DeviceAllocation(
            {"CUDA_VISIBLE_DEVICES": ",".join(part), **shared},
            kind="gpu",
            count=len(part) / sharers,
        )
        for part in _equal_parts(gpus, workers)
    ]


def _equal_parts(devices: Sequence, count: int, size: int | None = None) -> list[tuple]:
    """Splits devices into parts of one size, so that trials can be compared.

    The remainder is not used. If there are too few, parts share a device.
    """
    size = size or max(1, len(devices) // count)
    cycle = itertools.cycle(devices)
    return [tuple(itertools.islice(cycle, size)) for _ in range(count)]


def this_machine(
    environment: Mapping[str, str] = os.environ, root: Path = Path("/dev")
) -> Machine:
    """Returns the devices that this process may use, by the device files in `root`."""
    cores = tuple(range(os.cpu_count() or 1))
    if hasattr(os, "sched_getaffinity"):
        cores = tuple(sorted(os.sched_getaffinity(0)))
    platform = environment.get("JAX_PLATFORMS", "").split(",")[0]
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    chips = _read_list(environment, "TPU_VISIBLE_CHIPS") or _tpu_chips(root, names)
    if chips and platform in ("", "tpu"):
        is_in_slice = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        return Machine("tpu", chips, cores, is_in_slice)
    gpus = _read_list(environment, "CUDA_VISIBLE_DEVICES")
    if gpus is None:
        gpus = tuple(sorted(m[1] for n in names if (m := GPU_FILE.fullmatch(n))))
    if gpus and platform in ("", "cuda", "gpu"):
        return Machine("gpu", gpus, cores)
    return Machine("cpu", (), cores)


def _tpu_chips(root: Path, names: list[str]) -> tuple[str, ...]:
    """Counts /dev/accel0, ... of older TPUs, or /dev/vfio/0, ... of newer ones."""
    files = [name for name in names if re.fullmatch(r"accel\d+", name)]
    if not files and "vfio" in names and not any(map(GPU_FILE.fullmatch, names)):
        files = [p.name for p in (root / "vfio").iterdir() if p.name.isdigit()]
    return tuple(str(number) for number in range(len(files)))


def _read_list(environment: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    """Splits a variable at its commas; None if it is not set; "" and "-1" hide all."""
    if name not in environment:
        return None
    value = environment[name].strip()
    return () if value in ("", "-1") else tuple(value.split(","))
