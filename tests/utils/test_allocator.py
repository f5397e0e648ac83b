"""An entry point keeps its memory, as the same process with the same arguments."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from utils import allocator
from utils.allocator import HUGE_PAGES, SWITCH, TUNABLES, trim_heap, tune_allocator

PAGES = 2**24 * 4 // os.sysconf("SC_PAGE_SIZE")  # of the array below
PROGRAM = """
import os, resource, sys
from utils.allocator import tune_allocator
if sys.argv[1] == "kept":
    tune_allocator()
import jax, jax.numpy as jnp
add = jax.jit(lambda x: x + 1)
x = add(jnp.zeros(2**24))
for _ in range(16):  # until gaps of the heap have found their sizes
    add(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    add(x).block_until_ready()
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4
print(faults, os.getpid(), sys.stdin.read())
"""


GAPS = """
import sys
from utils.allocator import tune_allocator, trim_heap
tune_allocator()

def resident():
    (line,) = (l for l in open("/proc/self/status") if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

blocks = [bytearray(2**20) for _ in range(64)]
blocks = blocks[::8]  # gaps of 7 MiB
found = []
for number in map(int, sys.argv[1].split(",")):
    trim_heap(number)
    found.append(resident())
print(*found)
"""


def run(how: str) -> tuple[float, bool, str]:
    """Pages an array of 64 MiB, whether the process stayed the same, its input."""
    found, is_same = output_of(PROGRAM, how)
    faults, pid, text = found.split(maxsplit=2)
    return float(faults), is_same(pid), text.strip()


def output_of(program: str, argument: str):
    """What it prints, and whether a number is its process's."""
    settings = ("GLIBC_TUNABLES", SWITCH)
    environment = {k: v for k, v in os.environ.items() if k not in settings}
    process = subprocess.Popen(
        [sys.executable, "-c", program, argument],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    found, _ = process.communicate("as it came")
    return found, lambda number: int(number) == process.pid


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="mallopt is a function of glibc"
)
def test_arrays_cost_few_pages_in_the_same_process():
    faults, is_same, text = run("kept")
    assert faults < PAGES / 10
    assert is_same
    assert text == "as it came"
    assert run("given back")[0] > PAGES / 2


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="mallopt is a function of glibc"
)
def test_gaps_are_given_back_after_few_calls_and_then_kept():
    three, four, six = map(float, output_of(GAPS, "3,4,6")[0].split())
    assert 40 < three - four < 60  # MiB, of 56
    assert abs(four - six) < 2


def test_a_heap_that_is_not_kept_is_left_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator.ctypes, "CDLL", calls.append)
    for told in ("", f"{HUGE_PAGES}=0"):
        monkeypatch.setenv("GLIBC_TUNABLES", told)
        trim_heap(1)
    assert not calls


@pytest.fixture
def started(monkeypatch):
    """What would have been started, where the C library is glibc."""
    calls = []
    monkeypatch.setattr(allocator.os, "execv", lambda *call: calls.append(call))
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2"))
    argv = ["python", "train.py", "--plan"]
    monkeypatch.setattr(allocator.sys, "orig_argv", argv)
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv(SWITCH, raising=False)
    return calls


def test_it_starts_once_with_the_same_arguments(started):
    tune_allocator()
    tune_allocator()
    assert started == [(sys.executable, [sys.executable, "train.py", "--plan"])]
    settings = os.environ["GLIBC_TUNABLES"].split(":")
    assert settings == [f"{name}={value}" for name, value in TUNABLES.items()]


def test_other_tunables_stay(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=3")
    tune_allocator()
    settings = os.environ["GLIBC_TUNABLES"].split(":")
    assert settings[0] == "glibc.malloc.tcache_count=3"
    assert len(settings) == 1 + len(TUNABLES)


@pytest.mark.parametrize(("value", "restarts"), [("1", 0), ("0", 1), ("", 1)])
def test_one_environment_variable_switches_it_off(
    started, monkeypatch, value, restarts
):
    monkeypatch.setenv("ATTENTION_LAB_NO_ALLOCATOR_TUNING", value)
    tune_allocator()
    assert len(started) == restarts


def test_who_refused_huge_pages_is_left_alone(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", f"{HUGE_PAGES}=0")
    tune_allocator()
    assert not started


def test_another_c_library_is_left_alone(started, monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    tune_allocator()
    assert not started
