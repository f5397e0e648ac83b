"""Peak memory of training so far."""

from pathlib import Path

import jax

STATUS = Path("/proc/self/status")  # of Linux


def peak_memory_bytes() -> int | None:
    """Returns the peak of the fullest device, or of the process on a CPU.

    A process's peak includes programs and mapped files. None where the platform
    reports neither.
    """
    stats = (device.memory_stats() or {} for device in jax.local_devices())
    found = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    return max(found) if found else _resident_bytes()


def _resident_bytes() -> int | None:
    """Returns the peak resident memory of this process.

    psutil has no peak on Linux, and `resource.getrusage` counts what the parent
    process held before it started this program.
    """
    if not STATUS.exists():
        return None
    for line in STATUS.read_text(encoding="utf8").splitlines():
        name, _, size = line.partition(":")
        if name == "VmHWM":
            return 1024 * int(size.split()[0])
    return None
