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
