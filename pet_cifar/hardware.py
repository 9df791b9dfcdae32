"""What this machine is and has: its processor, the cores and the memory that this process may use."""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
# of malloc.h; they have been these numbers since glibc 2.0
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@cache
def _field(name: str) -> str:
    """A field of the first processor in Linux's list; empty elsewhere."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.split(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""


def processor_name() -> str:
    """Such as ``AMD EPYC``."""
    return _field("model name") or platform.processor() or platform.machine()


def computes_bfloat16() -> bool | None:
    """Whether it multiplies bfloat16 numbers itself; None where the system does not tell.

    Without (AVX-512 BF16, AMX, or Arm's BF16) they are turned into float32 first, which takes longer than float32.
    """
    flags = (_field("flags") or _field("Features")).split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags)) if flags else None


def cores() -> int:
    """Processors that this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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


def available_memory() -> float:
    """Bytes that could be taken without swapping; infinite where the system does not tell."""
    available = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        available = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), available)
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    return min(available, _group_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))


def _group_memory(own: Path, groups: Path) -> float:
    """What a container or a batch system leaves to this process; infinite without a limit (Linux cgroup v2)."""
    try:
        name = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return float("inf")
    group = groups / name.lstrip("/")
    left = float("inf")
    for folder in (group, *group.parents):
        limit = folder / "memory.max"
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # what was read from files and is not in use makes room when it is needed
            used = int((folder / "memory.current").read_text()) - int(statistics["inactive_file"])
            left = min(left, int(most) - used)
        if folder == groups:
            break
    return left
