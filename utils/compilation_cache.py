"""Persistent cache of compiled programs, on by default in every entry point.

JAX stores each program that takes a tenth of a second or more to compile and loads it
in the next process that needs the same one
(https://docs.jax.dev/en/latest/persistent_compilation_cache.html). It has no effect on
results. The folder is `attention-lab/jax` in XDG_CACHE_HOME or ~/.cache; it may be
deleted at any time. Programs that were not used for longest leave it at 2 GB.

A JAX_COMPILATION_CACHE_DIR in the environment wins, and
JAX_ENABLE_COMPILATION_CACHE=false switches the cache off.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

SWITCH = "JAX_ENABLE_COMPILATION_CACHE"
FOLDER = "JAX_COMPILATION_CACHE_DIR"
MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
MAX_BYTES = 2 * 10**9
OFF = ("0", "false", "f", "no", "n", "off")  # as JAX reads them
PROBE_BYTES = 2**16  # written to see whether the folder can take a program


def enable_compilation_cache() -> None:
    """Sets the variables of JAX's cache, for this process and those that it starts.

    Call it before JAX is imported. A folder that cannot be written is reported in one
    line; programs are then compiled without a cache.
    """
    if FOLDER in os.environ or os.environ.get(SWITCH, "").lower() in OFF:
        return
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
        remove_oldest(folder, MAX_BYTES)
    except OSError as error:
        os.environ[SWITCH] = "false"  # so that no other process reports it
        print(f"warning: compiled programs are not cached: {error}", file=sys.stderr)
        return
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(MIN_SECONDS, "0.1")


def default_folder() -> Path:
    """Returns the folder of compiled programs in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # to be ignored, by the XDG specification
        cache = os.path.expanduser("~/.cache")
    return Path(cache) / "attention-lab" / "jax"


def remove_oldest(folder: Path, max_bytes: int) -> None:
    """Removes the programs that were not read for longest, down to a size."""
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            files.append((path.stat(), path))
    files.sort(key=lambda file: file[0].st_atime, reverse=True)
    total = 0
    for stat, path in files:
        total += stat.st_size
        if total > max_bytes:
            path.unlink(missing_ok=True)
