import platform
import subprocess
import sys

import pytest

# in a process of its own: there is no way back
PROGRAM = """
import resource
from pet_cifar.allocator import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

done = keep_freed_memory()
page_faults()
print(done, page_faults())
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


@pytest.mark.skipif(platform.libc_ver()[0] == "glibc", reason="what happens elsewhere")
def test_other_systems_are_left_alone() -> None:
    assert run()[0] is False


def test_nothing_is_done_where_the_library_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from pet_cifar.allocator import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
