"""An entry point works in huge pages, as the same process with the same arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import huge_pages
from huge_pages import TUNABLE, are_given_on_request, use_huge_pages

PAGES = 2**24 * 4 // os.sysconf("SC_PAGE_SIZE")  # of the array below
PROGRAM = """
import os, resource, sys
from huge_pages import use_huge_pages
if sys.argv[1] == "huge":
    use_huge_pages()
import jax, jax.numpy as jnp
add = jax.jit(lambda x: x + 1)
x = add(jnp.zeros(2**24))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    add(x).block_until_ready()
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4
print(faults, os.getpid(), sys.stdin.read())
"""


def run(how: str) -> tuple[float, bool, str]:
    """Pages an array of 64 MiB, whether the process stayed the same, its input."""
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    found, _ = process.communicate("as it came")
    faults, pid, text = found.split(maxsplit=2)
    return float(faults), int(pid) == process.pid, text.strip()


@pytest.mark.skipif(not are_given_on_request(), reason="the kernel's huge pages")
def test_arrays_cost_few_pages_in_the_same_process():
    faults, is_same, text = run("huge")
    assert faults < PAGES / 10
    assert is_same
    assert text == "as it came"
    assert run("small")[0] > PAGES / 2


@pytest.fixture
def started(monkeypatch):
    """What would have been started, where huge pages are given on request."""
    calls = []
    monkeypatch.setattr(huge_pages.os, "execv", lambda *call: calls.append(call))
    monkeypatch.setattr(huge_pages, "are_given_on_request", lambda: True)
    monkeypatch.setattr(huge_pages.sys, "orig_argv", ["python", "train.py", "--plan"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    return calls


def test_it_starts_once_with_the_same_arguments(started):
    use_huge_pages()
    use_huge_pages()
    assert started == [(sys.executable, [sys.executable, "train.py", "--plan"])]
    assert os.environ["GLIBC_TUNABLES"] == f"{TUNABLE}=1"


def test_other_tunables_stay(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=3")
    use_huge_pages()
    expected = f"glibc.malloc.tcache_count=3:{TUNABLE}=1"
    assert os.environ["GLIBC_TUNABLES"] == expected


def test_who_refused_huge_pages_gets_none(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", f"{TUNABLE}=0")
    use_huge_pages()
    assert not started


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]"])
def test_where_the_kernel_has_decided_nobody_asks(mode, monkeypatch, tmp_path):
    (tmp_path / "enabled").write_text(mode)
    monkeypatch.setattr(huge_pages, "MODE", tmp_path / "enabled")
    assert not are_given_on_request()
    monkeypatch.setattr(huge_pages, "MODE", tmp_path / "missing")
    assert not are_given_on_request()
