"""What the machine is, and what is asked of its C library."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pet_cifar import hardware

# It runs in a process of its own, since there is no way back.
PROGRAM = """
import resource
from pet_cifar.hardware import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

done = keep_freed_memory()
page_faults()
print(done, page_faults())
"""
# 3 GiB that nobody touches, so that they take no memory
LARGE = """
import ctypes
from pet_cifar.hardware import keep_freed_memory

keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_void_p
block = libc.malloc(3 * 2**30)
end = libc.sbrk(0)
libc.free(block)
print(end - libc.sbrk(0))
"""


def run() -> tuple[bool, int]:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert finished.stderr == ""
    done, faults = finished.stdout.split()
    return done == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_glibc_reuses_freed_memory_without_page_faults() -> None:
    done, faults = run()
    assert done
    # 64 MiB are 16,384 pages
    assert faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_glibc_keeps_blocks_of_several_gigabytes_too() -> None:
    command = [sys.executable, "-c", LARGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == 0


@pytest.mark.skipif(platform.libc_ver()[0] == "glibc", reason="what happens elsewhere")
def test_other_systems_are_left_alone() -> None:
    assert run()[0] is False


def test_nothing_is_done_where_the_library_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert hardware.keep_freed_memory() is False


@pytest.mark.skipif(
    not (hardware.STATUS.is_file() and b"VmHWM:" in hardware.STATUS.read_bytes()),
    reason="only Linux tells apart what the starting process took",
)
def test_the_memory_is_that_of_this_process_alone() -> None:
    ballast = b"x" * 300_000_000
    code = "from pet_cifar.hardware import peak_memory; print(peak_memory())"
    command = [sys.executable, "-c", code]
    # It is forked, so that it starts with all that this one has.
    found = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=os.getpid)
    assert len(ballast) > int(found.stdout) > 1_000_000
    assert (hardware.peak_memory() or 0) > len(ballast)


def test_a_process_whose_name_is_cut_within_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_bytes(b"Name:\tf\xc3\nVmHWM:\t    2048 kB\nVmRSS:\t  1024 kB\n")
    monkeypatch.setattr(hardware, "STATUS", tmp_path / "status")
    assert hardware.peak_memory() == 2048 * 1024


def test_a_system_that_does_not_tell_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "STATUS", tmp_path / "none")
    peak = hardware.peak_memory()
    assert peak is None or peak > 10_000_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory() is None


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    hardware._field.cache_clear()
    yield
    hardware._field.cache_clear()


INTEL = "processor\t: 0\nmodel name\t: A: fast one\nflags\t\t: fpu sse2 {}\n\nprocessor\t: 1\nmodel name\t: other\n"
AMD = "vendor_id\t: AuthenticAMD\n" + INTEL
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "name", "gains"),
    [
        (INTEL.format("avx2"), "A: fast one", False),
        (INTEL.format("avx512_bf16"), "A: fast one", False),
        (AMD.format("avx512_bf16"), "A: fast one", True),
        (INTEL.format("amx_bf16"), "A: fast one", True),
        (ARM.format("bf16"), None, None),
        (ARM.format("sve"), None, False),
        ("", None, None),
    ],
)
def test_what_linux_says(
    text: str, name: str | None, gains: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.gains_from_bfloat16() is gains
    assert hardware.processor_name() == name or (name is None and hardware.processor_name())


@pytest.mark.parametrize(
    ("text", "accelerator", "gpu", "precision"),
    [
        (INTEL.format("amx_bf16"), "auto", None, "bf16-mixed"),
        (INTEL.format("avx512_bf16"), "cpu", None, "32-true"),
        (AMD.format("avx512_bf16"), "cpu", None, "bf16-mixed"),
        (INTEL.format("avx2"), "auto", None, "32-true"),
        (ARM.format("bf16"), "auto", None, "32-true"),
        ("", "cpu", None, "32-true"),
        (INTEL.format("amx_bf16"), "auto", False, "32-true"),
        (INTEL.format("amx_bf16"), "cpu", False, "bf16-mixed"),
        (INTEL.format("avx2"), "auto", True, "bf16-mixed"),
        (INTEL.format("avx2"), "gpu", True, "bf16-mixed"),
        (INTEL.format("avx2"), "cpu", True, "32-true"),
        (INTEL.format("amx_bf16"), "mps", None, "32-true"),
    ],
)
def test_the_precision_that_the_hardware_computes_natively(
    text: str, accelerator: str, gpu: bool | None, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    # A GPU that only emulates bfloat16 would be counted, too, unless it is asked for its own.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or gpu)
    assert hardware.native_precision(accelerator) == precision


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.gains_from_bfloat16() is None
    assert hardware.processor_name()


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    job = tmp_path / "groups" / "job"
    (job / "step").mkdir(parents=True)
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    assert hardware._group_memory(own, tmp_path / "groups") == float("inf")
    for folder, limit in ((job / "step", "max"), (job, "16000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("9000\n")
        (folder / "memory.stat").write_text("anon 2000\ninactive_file 7000\n")
    assert hardware._group_memory(own, tmp_path / "groups") == 14000
    assert hardware._group_memory(tmp_path / "none", tmp_path / "groups") == float("inf")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, float("inf")),
        ({"job/cpu.max": "max 100000"}, float("inf")),
        ({"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, 1.5),
        ({"job/cpu.max": "150000 100000", "job/step/cpu.max": "50000 100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_containers_cores_count(
    limits: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("0::/job/step\n")
    for name, content in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{content}\n")
    assert hardware._group_cores(own, groups) == expected
    monkeypatch.setattr(hardware, "CGROUP", own)
    monkeypatch.setattr(hardware, "GROUPS", groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert hardware.cores() == (64 if expected == float("inf") else max(1, round(expected + 0.49)))
