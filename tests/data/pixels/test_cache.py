import errno
import io
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pet_cifar.data.pixels import cache as caching
from pet_cifar.data.pixels.cache import DevicePixels, FilePixels, open_pixels
from pet_cifar.data.pixels.checksum import checksum
from pet_cifar.data.pixels.feature_files import FeatureFile
from pet_cifar.data.pixels.growing import Pixels
from pet_cifar.data.pixels.memmap import MemmapArray
from pet_cifar.data.pixels.placement import Placement
from pet_cifar.errors import InputError
from tests.conftest import WITHOUT_LIGHTNING, set_free_space

CACHES: tuple[Placement, ...] = ("none", "ram", "disk", "device")
SHAPE = (3, 4, 5)
COUNT = 23


class Source:
    """Random pictures, and how often each was decoded."""

    def __init__(self) -> None:
        self.array = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)
        self.reads: Counter[int] = Counter()
        self._lock = threading.Lock()

    def read(self, row: int) -> NDArray[np.uint8]:
        with self._lock:
            self.reads[row] += 1
        pixels: NDArray[np.uint8] = self.array[row]
        return pixels


def opened(source: Source, cache: Placement, file: Path, threads: int = 2) -> Pixels:
    cpu = torch.device("cpu")
    return open_pixels(source.read, COUNT, SHAPE, cache, file=file, device=cpu, num_threads=threads)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "train.npy"


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("cache", CACHES)
def test_every_cache_gives_the_same_batches(source: Source, file: Path, cache: Placement, threads: int) -> None:
    pixels = opened(source, cache, file, threads)
    for rows in (np.array([5, 0, 22, 5]), np.arange(COUNT), np.array([7])):
        batch = pixels.take(rows)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, torch.from_numpy(source.array[rows]))


@pytest.mark.parametrize("cache", CACHES)
def test_a_batch_may_be_changed_without_changing_the_next(source: Source, file: Path, cache: Placement) -> None:
    pixels = opened(source, cache, file)
    rows = np.array([1, 2])
    pixels.take(rows).zero_()
    assert torch.equal(pixels.take(rows), torch.from_numpy(source.array[rows]))


def test_without_a_cache_only_what_is_asked_for_is_decoded(source: Source, file: Path) -> None:
    pixels = opened(source, "none", file)
    assert not source.reads
    pixels.take(np.array([3, 4]))
    pixels.take(np.array([4]))
    assert source.reads == {3: 1, 4: 2}


@pytest.mark.parametrize("cache", ["ram", "disk", "device"])
def test_a_cache_decodes_everything_once(source: Source, file: Path, cache: Placement) -> None:
    pixels = opened(source, cache, file)
    pixels.take(np.arange(COUNT))
    pixels.take(np.arange(COUNT))
    assert source.reads == dict.fromkeys(range(COUNT), 1)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_no_other_cache_writes(source: Source, file: Path, cache: Placement) -> None:
    opened(source, cache, file).take(np.arange(COUNT))
    assert not file.parent.exists()


def test_the_disk_cache_is_shared(source: Source, file: Path) -> None:
    opened(source, "disk", file)
    source.reads.clear()
    again = opened(source, "disk", file)
    assert torch.equal(again.take(np.arange(COUNT)), torch.from_numpy(source.array))
    assert not source.reads


def test_the_disk_cache_is_built_once_by_two_at_the_same_time(source: Source, file: Path) -> None:
    threads = [threading.Thread(target=opened, args=(source, "disk", file)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.reads == dict.fromkeys(range(COUNT), 1)


def test_the_disk_cache_is_a_plain_npy_file(source: Source, file: Path) -> None:
    opened(source, "disk", file)
    assert np.array_equal(np.load(file), source.array)
    assert not file.with_name("train.npy.part").exists()


def test_what_a_killed_build_left_is_not_used(source: Source, file: Path) -> None:
    file.parent.mkdir()
    part = file.with_name("train.npy.part")
    half = np.lib.format.open_memmap(part, "w+", np.uint8, (COUNT, *SHAPE))
    half[: COUNT // 2] = 99
    half.flush()
    pixels = opened(source, "disk", file)
    assert torch.equal(pixels.take(np.arange(COUNT)), torch.from_numpy(source.array))
    assert not part.exists()


def test_a_build_that_failed_is_done_again(source: Source, file: Path) -> None:
    def fails(row: int) -> NDArray[np.uint8]:
        if row == 11:
            raise OSError("unplugged")
        pixels: NDArray[np.uint8] = source.array[row]
        return pixels

    with pytest.raises(OSError, match="unplugged"):
        open_pixels(fails, COUNT, SHAPE, "disk", file=file, device=torch.device("cpu"), num_threads=2)
    assert [left.suffix for left in file.parent.iterdir()] == [".lock"], "what is of no use takes no room"
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))


def test_a_full_disk_is_told_before_anything_is_decoded(
    source: Source, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_space(monkeypatch, COUNT * 60)
    with pytest.raises(InputError, match=r"GB are free; make room, or give cache: none") as caught:
        opened(source, "disk", file)
    assert str(file.parent) in str(caught.value)
    assert not source.reads
    assert not file.exists()


def test_the_room_that_a_killed_build_takes_counts_as_free(
    source: Source, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.parent.mkdir()
    part = file.with_name("train.npy.part")
    part.write_bytes(b"half")
    set_free_space(monkeypatch, lambda: 60 if part.exists() else 10**6)
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))


def writes_with(patch: pytest.MonkeyPatch, kind: type[io.FileIO]) -> None:
    read = Path.open
    patch.setattr(
        Path,
        "open",
        lambda self, mode="r", *rest, **more: kind(self, mode) if mode == "w+b" else read(self, mode, *rest),
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("when", ["write", "flush"])
def test_a_disk_that_fails_in_between_is_told_in_a_line(
    source: Source, file: Path, monkeypatch: pytest.MonkeyPatch, when: str, number: int
) -> None:
    def fails(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    class Full(io.FileIO):
        def write(self, content: Any, /) -> int:
            return fails() if len(content) == 60 else super().write(content)

    if when == "flush":  # in the background, once: the one at the end succeeds
        fsync, calls = os.fsync, itertools.count()
        monkeypatch.setattr(os, "fsync", lambda number: fails() if next(calls) == 0 else fsync(number))
        monkeypatch.setattr(caching, "FLUSHED", 5 * 60)
    else:
        writes_with(monkeypatch, Full)
    with pytest.raises(InputError, match=rf"cannot write .*train.npy.part: {os.strerror(number)}; make room"):
        opened(source, "disk", file)
    monkeypatch.undo()
    assert [left.suffix for left in file.parent.iterdir()] == [".lock"]
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))


def test_a_write_may_come_in_pieces(source: Source, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, content: Any, /) -> int:
            return super().write(content if len(content) > 60 else content[:7])

    with monkeypatch.context() as patch:
        writes_with(patch, Slow)
        opened(source, "disk", file)
    assert np.array_equal(np.load(file), source.array)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("wrong", [np.zeros((1, 4, 5), np.uint8), np.zeros(SHAPE, np.float32)])
def test_a_picture_of_another_shape_or_type_is_refused(file: Path, cache: Placement, wrong: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"picture 0 was read as .* must give uint8 of shape \(3, 4, 5\)"):
        open_pixels(lambda row: wrong, COUNT, SHAPE, cache, file=file, device=torch.device("cpu"), num_threads=1).take(
            np.arange(3)
        )


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_too_little_memory_is_told_before_anything_is_decoded(
    source: Source, file: Path, monkeypatch: pytest.MonkeyPatch, cache: Placement
) -> None:
    monkeypatch.setattr(caching, "available_memory", lambda: 1000.0)
    with pytest.raises(InputError, match="GB of memory and 0.0 GB are available; give cache: disk, or none"):
        opened(source, cache, file)
    assert not source.reads


BUILD = f"""{WITHOUT_LIGHTNING}
from pathlib import Path
import numpy as np
import torch
from pet_cifar.data.pixels.cache import open_pixels
def read(row):
    with open(sys.argv[2], "a") as reads:
        reads.write("x")
    return np.full((1, 8, 8), row, np.uint8)
file = Path(sys.argv[1])
open_pixels(read, 200, (1, 8, 8), "disk", file=file, device=torch.device("cpu"), num_threads=2)
"""


def test_processes_build_one_file(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(file), str(tmp_path / "reads")]
    together = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait() for one in together] == [0, 0]
    assert (tmp_path / "reads").read_text() == 200 * "x"
    assert np.array_equal(np.load(file)[:, 0, 0, 0], np.arange(200))


@pytest.mark.parametrize("cache", CACHES)
def test_a_picture_that_cannot_be_read_stops_the_work(file: Path, cache: Placement) -> None:
    reads: list[int] = []

    def read(row: int) -> NDArray[np.uint8]:
        reads.append(row)
        raise ValueError(f"picture {row} is gone")

    with pytest.raises(ValueError, match="picture 0 is gone"):
        open_pixels(read, 5000, (1, 2, 2), cache, file=file, device=torch.device("cpu"), num_threads=2).take(
            np.arange(1)
        )
    assert len(reads) < 5000, "everything that waited was still read"


def test_the_device_takes_what_is_in_the_file(source: Source, file: Path) -> None:
    opened(source, "disk", file)
    source.reads.clear()
    pixels = opened(source, "device", file)
    assert isinstance(pixels, DevicePixels)
    assert torch.equal(pixels.tensor, torch.from_numpy(source.array))
    assert not source.reads


HEADERS = {
    "a giant": "(100000000000000000000000000,)",
    "truth": "(True,)",
    "no number": "(1.5,)",
    "deep": "(" * 3000 + ")" * 3000,
    "no end": "(1,",
    "a list as a key": "(1,), [1]: 2",
}


def with_header(shape: str) -> bytes:
    """A file with a header of numpy's that gives this shape."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


@pytest.mark.parametrize("shape", HEADERS.values(), ids=HEADERS)
def test_a_forged_header_is_told_and_made_anew(source: Source, file: Path, shape: str) -> None:
    opened(source, "disk", file)
    file.write_bytes(with_header(shape))
    with pytest.raises(ValueError, match="npy|array|header|shape"):
        MemmapArray(file)
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))
    features = FeatureFile(file.with_name("features.npy"), 3)
    features.create((2,))
    assert features.is_there()
    features.file.write_bytes(with_header(shape))
    assert not features.is_there()


@pytest.mark.parametrize("damage", ["short", "empty", "other shape", "other type", "nonsense"])
def test_a_damaged_file_is_made_anew(source: Source, file: Path, damage: str) -> None:
    opened(source, "disk", file)
    whole = file.read_bytes()
    if damage == "short":
        file.write_bytes(whole[:-1])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "nonsense":
        file.write_bytes(b"nothing that numpy knows" * 99)
    else:
        shape, kind = ((COUNT - 1, *SHAPE), np.uint8) if damage == "other shape" else ((COUNT, *SHAPE), np.int8)
        np.save(file, np.zeros(shape, kind))
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))
    assert np.array_equal(np.load(file), source.array)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is resident")
def test_of_a_large_file_little_stays_in_memory(tmp_path: Path) -> None:
    # This is a sparse file of 300 MB, which is more than what may stay.
    size, count = 40_000, 7500
    array = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (count, 1, 200, 200))
    array[::100] = 7
    del array
    with (tmp_path / "large.npy").open("ab") as file:
        file.write(b"".join(checksum(bytes([0 if row % 100 else 7]) * size) for row in range(count)))

    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    pixels = FilePixels(tmp_path / "large.npy")
    before = resident()
    for start in range(0, count, 50):
        assert pixels.take(np.arange(start, min(start + 50, count))).shape[1:] == (1, 200, 200)
    assert resident() - before < count * size / 4


# Checksums


@pytest.mark.parametrize("behind", [1, COUNT * 8 + 1], ids=["a checksum", "a picture"])
def test_a_row_that_was_tampered_with_is_refused(source: Source, file: Path, behind: int) -> None:
    opened(source, "disk", file)
    content = bytearray(file.read_bytes())
    content[-behind] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="train.npy was changed or damaged"):
        opened(source, "device", file)
    pixels = opened(source, "disk", file)
    with pytest.raises(InputError, match="train.npy was changed or damaged"):
        pixels.take(np.arange(COUNT))


def test_a_row_is_compared_when_it_is_first_asked_for(source: Source, file: Path) -> None:
    opened(source, "disk", file)
    content = bytearray(file.read_bytes())
    content[len(content) - COUNT * 8 - 1] ^= 1
    file.write_bytes(content)
    pixels = opened(source, "disk", file)
    assert torch.equal(pixels.take(np.arange(COUNT - 1)), torch.from_numpy(source.array[: COUNT - 1]))
    with pytest.raises(InputError, match=f"picture {COUNT - 1} "):
        pixels.take(np.array([COUNT - 1]))


def test_a_file_without_checksums_is_made_anew(source: Source, file: Path) -> None:
    file.parent.mkdir()
    np.save(file, np.zeros((COUNT, *SHAPE), np.uint8))
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))
