"""Environment of a run: versions, devices, flags, commit and peak memory."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import jax

CHECKOUT = Path(__file__).parents[2]
MAX_PATCH_BYTES = 10**6
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sacrebleu")


def environment_info() -> dict:
    """Returns versions, devices, threads, XLA flags and commit of this process."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "devices": [device.device_kind for device in jax.devices()],
        "platform": jax.default_backend(),
        "processes": jax.process_count(),
        "threads": num_threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "commit": commit(),
    }


def make_deterministic() -> None:
    """Makes GPU operations repeat to the bit, at some cost of speed.

    Call it before any device is used. CPUs and TPUs always repeat.
    """
    flag = "--xla_gpu_deterministic_ops=true"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def num_threads() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str:
    """Returns the git commit, with a + if files differ; "" if unknown."""
    try:
        changes = _git("status", "--porcelain", "--untracked-files=no").strip()
        return _git("rev-parse", "HEAD").strip() + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def uncommitted_changes() -> str:
    """Returns a patch of what differs from the git commit; "" for nothing.

    Files that git does not know are left out, the content of binary ones, and what
    exceeds `MAX_PATCH_BYTES`.
    """
    try:
        patch = _git("diff", "--no-ext-diff", "--no-color", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return ""
    content = patch.encode()
    if len(content) <= MAX_PATCH_BYTES:
        return patch
    kept, _, _ = content[:MAX_PATCH_BYTES].rpartition(b"\n")
    return f"{kept.decode()}\n... cut: the patch has {len(content)} bytes\n"


def _git(*words: str) -> str:
    """Returns the output of a git command in this checkout."""
    command = ("git", "-C", CHECKOUT, *words)
    output = subprocess.check_output(command, stderr=subprocess.DEVNULL)
    return output.decode(errors="replace")


STATUS = Path("/proc/self/status")  # of Linux


def peak_memory_bytes() -> int | None:
    """Returns the peak of the fullest device, or of the process on a CPU.

    A process's peak includes programs and mapped files. None where the platform
    reports neither.
    """
    stats = (device.memory_stats() or {} for device in jax.local_devices())
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    if peaks:
        return max(peaks)
    # psutil has no peak on Linux, and `resource.getrusage` counts what the parent
    # process held before it started this program.
    status = STATUS.read_text(encoding="utf8") if STATUS.exists() else ""
    resident = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return 1024 * int(resident[1]) if resident else None
