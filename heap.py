"""Memory that this process gave back is used again, not asked for anew.

XLA's CPU client takes a program's working memory at each call and gives it back after
it. Blocks of that size the C library takes from the kernel one by one, which zeroes
every page that is touched: a fifth of a training step. Told to keep its heap, it hands
the same pages out again.

On accelerators, where memory is the device's, this changes nothing; nor does it where
the C library is not glibc.
"""

import ctypes
import os

# Parameters of mallopt(3), by their numbers in glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 2**30  # bytes of a block; larger ones are the kernel's as before
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Asks the C library to keep what it has; whether it does.

    What MALLOC_ARENA_MAX, MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ say in the
    environment stands. One heap instead of one a thread, since only the first can have
    blocks beyond 64 MiB. To be called before there are large arrays.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = {
        "MALLOC_ARENA_MAX": (ARENA_MAX, 1),
        "MALLOC_MMAP_THRESHOLD_": (MMAP_THRESHOLD, LARGEST_KEPT),
        "MALLOC_TRIM_THRESHOLD_": (TRIM_THRESHOLD, NEVER),
    }
    missing = [wanted[name] for name in wanted if name not in os.environ]
    return all([mallopt(*setting) for setting in missing])
