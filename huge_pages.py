"""Working memory in pages of 2 MiB, which the kernel hands out 512 times as seldom.

XLA's CPU client takes a program's working memory from the C library at each call and
gives it back after it, and the kernel zeroes page after page of it: a fifth of a
training step. glibc can ask for huge pages, but only of a process that is told so
before it begins (https://www.gnu.org/software/libc/manual/html_node/Tunables.html),
so an entry point starts itself once more, as the same process, with
GLIBC_TUNABLES=glibc.malloc.hugetlb=1.

Where the kernel gives huge pages always or never, where the C library is not glibc, and
where the environment says something of them already, nothing happens.
"""

import os
import platform
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts this program once more if that brings huge pages.

    To be called before anything is read from standard input.
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE not in told and are_given_on_request():
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [told, f"{TUNABLE}=1"]))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def are_given_on_request() -> bool:
    """Whether the kernel gives huge pages to who asks, and glibc can ask."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        return "[madvise]" in MODE.read_text()
    except OSError:  # not Linux, or a kernel without them
        return False
