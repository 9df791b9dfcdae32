"""Keeps the C library from giving memory back between two steps."""

import ctypes
import platform

# of malloc.h; they have been these numbers since glibc 2.0
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Lets glibc reuse the memory of freed activations instead of returning it to the system.

    By default it maps every large block anew and pays a page fault for each of its pages, at every step: on a CPU
    that takes more than half of the time of a net with large activations. Elsewhere than with glibc nothing is done.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    largest = ctypes.c_int(2**31 - 1)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, largest))
