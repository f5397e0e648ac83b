"""Working memory that is kept, in pages of 2 MiB.

XLA's CPU client takes a program's working memory from the C library at each call and
gives it back after it, and the kernel zeroes page after page of it: a fifth of a
training step. glibc can keep what it was given and ask for huge pages, but only in a
process that is told so before it begins
(https://www.gnu.org/software/libc/manual/html_node/Tunables.html), so an entry point
starts itself once more, as the same process, with TUNABLES in its environment.

The price: where a small block has come to lie in a gap of the heap, the next program's
working memory does not fit it any more, and the gap is held beside it. Training gives
such gaps back (`trim_heap`). GLIBC_TUNABLES=glibc.malloc.hugetlb=0, or anything
else said of huge pages, leaves the C library as it is. Where it is not glibc, nothing
happens.
"""

import ctypes
import os
import platform
import sys

HUGE_PAGES = "glibc.malloc.hugetlb"
TUNABLES = {
    HUGE_PAGES: 1,  # of the kernel where it gives them on request
    "glibc.malloc.arena_max": 1,  # one heap: only the first can hold large blocks
    "glibc.malloc.mmap_threshold": 2**40,  # bytes; no block stands apart
    "glibc.malloc.trim_threshold": 2**40,  # the heap is kept
}
SETTINGS = ":".join(f"{name}={value}" for name, value in TUNABLES.items())


def tune_allocator() -> None:
    """Starts this program once more, so that it keeps the memory that it works in.

    To be called before anything is read from standard input.
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES in told or platform.libc_ver()[0] != "glibc":
        return
    os.environ["GLIBC_TUNABLES"] = ":".join([*filter(None, [told]), SETTINGS])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def trim_heap(number: int) -> None:
    """Gives the kernel what is free in a kept heap after call 1, 2, 4, 8 and so on.

    Small blocks settle in the first calls of a program; afterwards it finds the gap
    that it left, mostly. A call that is under way keeps its working memory; the next
    one after a call that is done is given its own anew, a tenth of a second for 500 MB,
    which is little a few times and too much each time.
    """
    is_power = number > 0 and number & (number - 1) == 0
    if is_power and SETTINGS in os.environ.get("GLIBC_TUNABLES", ""):
        ctypes.CDLL(None).malloc_trim(0)
