"""The most memory that training has held so far, as far as the platform tells."""

from pathlib import Path

import jax

STATUS = Path("/proc/self/status")  # of Linux


def peak_memory_bytes() -> int | None:
    """Of the fullest device of this process, or of the process itself.

    Accelerators count what they hold. On a CPU arrays lie in the process, so its
    largest resident memory counts, programs and mapped files included. None where
    neither is told.
    """
    stats = (device.memory_stats() or {} for device in jax.local_devices())
    found = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    return max(found) if found else _resident_bytes()


def _resident_bytes() -> int | None:
    if not STATUS.exists():
        return None
    for line in STATUS.read_text(encoding="utf8").splitlines():
        name, _, size = line.partition(":")
        if name == "VmHWM":
            return 1024 * int(size.split()[0])
    return None
