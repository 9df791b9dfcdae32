import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pet_cifar import processor


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    processor._field.cache_clear()
    yield
    processor._field.cache_clear()


INTEL = "processor\t: 0\nmodel name\t: A: fast one\nflags\t\t: fpu sse2 {}\n\nprocessor\t: 1\nmodel name\t: other\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "name", "native"),
    [
        (INTEL.format("avx2"), "A: fast one", False),
        (INTEL.format("avx512_bf16"), "A: fast one", True),
        (INTEL.format("amx_bf16"), "A: fast one", True),
        (ARM.format("bf16"), None, True),
        (ARM.format("sve"), None, False),
        ("", None, None),
    ],
)
def test_what_linux_says(
    text: str, name: str | None, native: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.computes_bfloat16() is native
    assert processor.processor_name() == name or (name is None and processor.processor_name())


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.computes_bfloat16() is None
    assert processor.processor_name()


@pytest.mark.skipif(not processor.STATUS.is_file(), reason="only Linux tells apart what the starting process took")
def test_the_memory_is_that_of_this_process_alone() -> None:
    ballast = b"x" * 300_000_000
    # forked, so that it starts with all that this one has
    code = "from pet_cifar.processor import peak_memory; print(peak_memory())"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, preexec_fn=os.getpid
    )
    assert len(ballast) > int(found.stdout) > 1_000_000
    assert (processor.peak_memory() or 0) > len(ballast)


def test_a_system_that_does_not_tell_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "STATUS", tmp_path / "none")
    peak = processor.peak_memory()
    assert peak is None or peak > 10_000_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert processor.peak_memory() is None
