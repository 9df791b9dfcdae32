"""Tells what the machine has: its processor and what it computes in, and the cores and the memory of this process."""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
CGROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# These are parameters of mallopt; glibc's malloc.h has had these numbers since version 2.0.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

Precision = Literal["bf16-mixed", "32-true"]
"""The precisions of Lightning's Trainer that every machine can compute in."""


@cache
def _field(name: str) -> str:
    """Returns a field of the first processor in Linux's list, or an empty string on other systems."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.split(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""


def processor_name() -> str:
    """Returns the processor's name, such as ``AMD EPYC``."""
    return _field("model name") or platform.processor() or platform.machine()


def gains_from_bfloat16() -> bool | None:
    """Tells whether the processor trains faster in bfloat16 than in float32.

    Processors with AMX and AMD's with AVX-512 BF16 were measured to. Intel's with AVX-512 BF16 alone do not: where
    oneDNN was kept from AMX (``ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16``), a step took as long as in float32 with one net,
    and half as long again with another. A processor without any of these turns bfloat16 into float32 first.

    Returns:
        None where it was not measured, as with Arm's BF16, or where the system does not tell.
    """
    flags = set((_field("flags") or _field("Features")).split())
    if not flags or "bf16" in flags:
        return None
    return "amx_bf16" in flags or ("avx512_bf16" in flags and _field("vendor_id") == "AuthenticAMD")


def native_precision(accelerator: str = "auto") -> Precision:
    """Chooses the precision for Lightning's Trainer that the hardware computes fastest.

    This is ``bf16-mixed`` where a GPU multiplies bfloat16 numbers itself, or where the processor is one that
    `gains_from_bfloat16`. Everywhere else it is ``32-true``.

    Args:
        accelerator: The Trainer's ``accelerator``; ``auto`` takes a GPU of CUDA or ROCm where there is one.
    """
    # torch takes seconds to import, and most callers of this module have no need of it.
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if accelerator in ("auto", "cpu") and gains_from_bfloat16() else "32-true"


def cores() -> int:
    """Returns how many cores this process may use, at least 1; a container's or batch system's limit counts."""
    # Only Linux ties a process to some of the cores.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _group_cores(CGROUP, GROUPS))))


def _group_cores(own: Path, groups: Path) -> float:
    """Returns the cores that Linux's cgroups, of version 2 or 1, leave to this process; infinite without a limit."""
    limits = [(folder / "cpu.max").read_text().split() for folder in _groups(own, groups, "cpu.max")]
    if (quota := groups / "cpu" / "cpu.cfs_quota_us").is_file():
        limits.append([quota.read_text().strip(), quota.with_name("cpu.cfs_period_us").read_text().strip()])
    return min((int(most) / int(period) for most, period in limits if most not in ("max", "-1")), default=math.inf)


def keep_freed_memory() -> bool:
    """Lets glibc reuse the memory of freed activations instead of returning it to the system.

    By default glibc maps every large block anew, and each of its pages costs a page fault at every step: on a CPU
    these take more than half of the time of a net with large activations.

    Returns:
        Whether it was done; False with any other C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # -1 means never. The largest positive number would be 2 GiB, which large batches exceed.
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def peak_memory() -> int | None:
    """Returns the largest resident memory of this process so far, in bytes; None where the system does not tell."""
    # This file comes first, since getrusage also counts what the parent process held when it started this one.
    if STATUS.is_file():
        # The process's name stands there too, and Linux may cut it within a letter.
        for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return maxrss_in_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def maxrss_in_bytes(maxrss: int) -> int:
    """Converts getrusage's ``ru_maxrss``, which is in bytes on macOS and in KiB elsewhere."""
    return maxrss if sys.platform == "darwin" else maxrss * 1024


def available_memory() -> float:
    """Returns how many bytes could be taken without swapping; infinite where the system does not tell."""
    available = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        available = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), available)
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    return min(available, _group_memory(CGROUP, GROUPS))


def _group_memory(own: Path, groups: Path) -> float:
    """Returns the bytes that Linux's cgroup v2 leaves to this process; infinite where it sets no limit."""
    left = float("inf")
    for folder in _groups(own, groups, "memory.max"):
        if (most := (folder / "memory.max").read_text().strip()) != "max":
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Pages of files that were read and are not in use are dropped when memory is needed.
            used = int((folder / "memory.current").read_text()) - int(statistics["inactive_file"])
            left = min(left, int(most) - used)
    return left


def _groups(own: Path, groups: Path, limit: str) -> Iterator[Path]:
    """Yields the groups of Linux's cgroup v2 that this process is in and that have this file, the innermost first."""
    try:
        name = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    group = groups / name.lstrip("/")
    for folder in (group, *group.parents):
        if (folder / limit).is_file():
            yield folder
        if folder == groups:
            break
