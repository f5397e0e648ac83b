"""Tuning of the C library's memory allocator (glibc), for speed on CPUs.

XLA's CPU client allocates a program's working memory at each call and frees it
afterwards, and the kernel zeroes page after page of it: a fifth of a training step.
glibc can keep freed memory and ask for huge pages of 2 MiB, but only in a process
that starts with the tunables below in its environment
(https://www.gnu.org/software/libc/manual/html_node/Tunables.html). So an entry point
starts itself once more, in the same process.

The price is memory: where small blocks lie in a gap of the heap, the working memory of
the next program does not fit into it. Training returns such gaps (`trim_heap`).

ATTENTION_LAB_NO_ALLOCATOR_TUNING=1 in the environment switches this off, and so does
any setting of glibc.malloc.hugetlb in GLIBC_TUNABLES. It has no effect on results.
"""

import ctypes
import os
import platform
import sys

SWITCH = "ATTENTION_LAB_NO_ALLOCATOR_TUNING"
HUGE_PAGES = "glibc.malloc.hugetlb"
TUNABLES = {
    HUGE_PAGES: 1,  # huge pages, where the kernel gives them on request
    "glibc.malloc.arena_max": 1,  # one heap: only the first can hold large blocks
    "glibc.malloc.mmap_threshold": 2**40,  # bytes; every block is in the heap
    "glibc.malloc.trim_threshold": 2**40,  # bytes; the heap is kept
}
SETTINGS = ":".join(f"{name}={value}" for name, value in TUNABLES.items())


def tune_allocator() -> None:
    """Restarts this program with `TUNABLES`, unless it has them or must not.

    Call it before anything is read from standard input.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    is_off = os.environ.get(SWITCH, "") not in ("", "0") or HUGE_PAGES in tunables
    if is_off or platform.libc_ver()[0] != "glibc":
        return
    os.environ["GLIBC_TUNABLES"] = ":".join([*filter(None, [tunables]), SETTINGS])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def trim_heap(num_calls: int) -> None:
    """Returns unused memory of a tuned heap to the kernel after call 1, 2, 4, 8, ...

    Small blocks find their places in the first calls of a program; after them the
    working memory mostly fits into the gap that it left. The call after a trim gets
    new memory, a tenth of a second for 500 MB, which is little a few times.
    """
    if num_calls > 0 and num_calls & (num_calls - 1) == 0:
        return_unused_memory()


def return_unused_memory() -> None:
    """Returns unused memory of a tuned heap to the kernel, such as a compiler's."""
    if SETTINGS in os.environ.get("GLIBC_TUNABLES", ""):
        ctypes.CDLL(None).malloc_trim(0)
