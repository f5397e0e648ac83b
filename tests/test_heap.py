"""Memory is kept: arrays of the same size come from pages that were touched before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heap import keep_memory

PAGES = 2**24 * 4 // os.sysconf("SC_PAGE_SIZE")  # of the array below
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from heap import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
add = jax.jit(lambda x: x + 1)
x = add(jnp.zeros(2**24))
for _ in range(16):  # until gaps of the heap have found their sizes
    add(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    add(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
"""


def faults(how: str) -> float:
    """Pages that the kernel is asked for, for each array of 64 MiB."""
    names = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    environment.pop("GLIBC_TUNABLES", None)
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_an_array_of_a_size_that_was_there_before_costs_no_page():
    assert faults("kept") < PAGES / 100 < faults("given back") / 10


def test_where_there_is_no_such_setting_nothing_happens(monkeypatch):
    monkeypatch.setattr("heap.ctypes.CDLL", lambda _: object())
    assert keep_memory() is False
