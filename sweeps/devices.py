"""Which devices each of several workers of one machine has, by their environment.

`shares` is a pure function of what is there: it starts nothing and asks no driver, so
that a sweep's own process never holds a device.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import UserError

GPU_MEMORY = 0.9  # share of a GPU that its workers take together
TPU_PORT = 8476  # the first
# Chips of a process, as a box in a host's grid.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}


@dataclasses.dataclass(frozen=True)
class Share:
    """What one worker's trials run on.

    Attributes:
      environment: variables to set.
      cores: CPU cores that its processes keep to; empty: all.
    """

    environment: dict[str, str]
    cores: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is there.

    Attributes:
      kind: "tpu", "gpu" or "cpu": what trials compute on.
      devices: names of chips or GPUs, as their variables want them.
      cores: CPU cores this process may use.
    """

    kind: str
    devices: tuple[str, ...]
    cores: tuple[int, ...]


def shares(machine: Machine, workers: int) -> list[Share]:
    """One for each worker. Raises UserError where there are too few chips."""
    if workers < 1:
        raise UserError(f"--workers={workers}: at least 1")
    if workers == 1:
        return [Share({})]  # all there is, as train.py has it
    if machine.kind == "tpu":
        return _of_tpu(machine, workers)
    if machine.kind == "gpu":
        return _of_gpus(machine, workers)
    return _of_cores(machine, workers)


def _of_tpu(machine: Machine, workers: int) -> list[Share]:
    """Chips cannot be shared; a process has 1, 2, 4 or 8 that are neighbours."""
    chips = len(machine.devices)
    if workers > chips:
        raise UserError(f"--workers={workers}: there are {chips} TPU chips")
    each = max(size for size in TPU_BOUNDS if size * workers <= chips)
    return [
        Share(
            {
                "TPU_VISIBLE_CHIPS": ",".join(
                    machine.devices[worker * each : (worker + 1) * each]
                ),
                "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[each],
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_ADDRESSES": f"localhost:{TPU_PORT + worker}",
                "TPU_PROCESS_PORT": str(TPU_PORT + worker),
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
        )
        for worker in range(workers)
    ]


def _of_gpus(machine: Machine, workers: int) -> list[Share]:
    """Whole GPUs; with more workers than GPUs each has a part of one's memory."""
    gpus = len(machine.devices)
    if workers <= gpus:
        return [
            Share({"CUDA_VISIBLE_DEVICES": ",".join(part)})
            for part in _parts(machine.devices, workers)
        ]
    sharers = -(-workers // gpus)
    return [
        Share(
            {
                "CUDA_VISIBLE_DEVICES": machine.devices[worker % gpus],
                "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{GPU_MEMORY / sharers:.3f}",
            }
        )
        for worker in range(workers)
    ]


def _of_cores(machine: Machine, workers: int) -> list[Share]:
    """Cores of its own; with more workers than cores each has one with others."""
    cores = machine.cores
    parts = (
        _parts(cores, workers)
        if workers <= len(cores)
        else [(cores[worker % len(cores)],) for worker in range(workers)]
    )
    return [
        Share(
            {name: str(len(part)) for name in ("OMP_NUM_THREADS", "PJRT_NPROC")},
            cores=tuple(part),
        )
        for part in parts
    ]


def _parts(row: Sequence, count: int) -> list[tuple]:
    """A row cut into pieces of one size; what is left over is not used.

    So that all trials have as many threads or devices, and can be compared.
    """
    each = len(row) // count
    return [tuple(row[i * each : (i + 1) * each]) for i in range(count)]


def this_machine(
    environment: Mapping[str, str] = os.environ, root: Path = Path("/dev")
) -> Machine:
    """What this process may use, without asking a driver.

    Args:
      root: where device files lie.
    """
    cores = _cores()
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    chips = _listed(environment, "TPU_VISIBLE_CHIPS") or _tpu_chips(root, names)
    if chips and platforms[0] in ("", "tpu"):
        return Machine("tpu", chips, cores)
    gpus = _listed(environment, "CUDA_VISIBLE_DEVICES")
    if gpus is None:
        gpus = tuple(sorted(m[1] for n in names if (m := _GPU.fullmatch(n))))
    if gpus and platforms[0] in ("", "cuda", "gpu"):
        return Machine("gpu", gpus, cores)
    return Machine("cpu", (), cores)


_GPU = re.compile(r"nvidia(\d+)")


def _tpu_chips(root: Path, names: list[str]) -> tuple[str, ...]:
    """Older TPUs are /dev/accel0, ..., newer ones /dev/vfio/0, ..."""
    found = [name for name in names if re.fullmatch(r"accel\d+", name)]
    if not found and "vfio" in names and not any(map(_GPU.fullmatch, names)):
        found = [p.name for p in (root / "vfio").iterdir() if p.name.isdigit()]
    return tuple(str(number) for number in range(len(found)))


def _listed(environment: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    """The names in a variable; None: it is not set. Only "-1" and "" hide all."""
    if name not in environment:
        return None
    value = environment[name].strip()
    return () if value in ("", "-1") else tuple(value.split(","))


def _cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
