"""What the processor is and can."""

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


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
