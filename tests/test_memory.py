import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pet_cifar import memory

# in a process of its own: there is no way back
PROGRAM = """
import resource
from pet_cifar.memory import keep_freed_memory

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
from pet_cifar.memory import keep_freed_memory

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
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(
    not (memory.STATUS.is_file() and b"VmHWM:" in memory.STATUS.read_bytes()),
    reason="only Linux tells apart what the starting process took",
)
def test_the_memory_is_that_of_this_process_alone() -> None:
    ballast = b"x" * 300_000_000
    code = "from pet_cifar.memory import peak_memory; print(peak_memory())"
    command = [sys.executable, "-c", code]
    # forked, so that it starts with all that this one has
    found = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=os.getpid)
    assert len(ballast) > int(found.stdout) > 1_000_000
    assert (memory.peak_memory() or 0) > len(ballast)


def test_a_process_whose_name_is_cut_within_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_bytes(b"Name:\tf\xc3\nVmHWM:\t    2048 kB\nVmRSS:\t  1024 kB\n")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.peak_memory() == 2048 * 1024


def test_a_system_that_does_not_tell_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    peak = memory.peak_memory()
    assert peak is None or peak > 10_000_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_memory() is None
