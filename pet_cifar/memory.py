"""This process's memory: how much it took, and that the C library does not give it back between two steps."""

import ctypes
import platform
import sys
from pathlib import Path

# of malloc.h; they have been these numbers since glibc 2.0
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
STATUS = Path("/proc/self/status")


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
    # -1 is never; the largest number would be 2 GiB, which large batches exceed
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; None where the system does not tell (Windows)."""
    if STATUS.is_file():  # what getrusage says begins with that of the process that started this one
        # the process's own name, which may be cut within a letter, stands there too
        for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return in_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def in_bytes(maxrss: int) -> int:
    """What getrusage calls ``ru_maxrss``: bytes on macOS, KiB elsewhere."""
    return maxrss if sys.platform == "darwin" else maxrss * 1024
