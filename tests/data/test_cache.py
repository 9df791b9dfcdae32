import shutil
import threading
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pet_cifar.data.cache import Cache, Pixels, open_pixels
from pet_cifar.errors import InputError

CACHES: tuple[Cache, ...] = ("none", "ram", "disk", "device")
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


def opened(source: Source, cache: Cache, file: Path, threads: int = 2) -> Pixels:
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
def test_every_cache_gives_the_same_batches(source: Source, file: Path, cache: Cache, threads: int) -> None:
    pixels = opened(source, cache, file, threads)
    for rows in (np.array([5, 0, 22, 5]), np.arange(COUNT), np.array([7])):
        batch = pixels.take(rows)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, torch.from_numpy(source.array[rows]))


@pytest.mark.parametrize("cache", CACHES)
def test_a_batch_may_be_changed_without_changing_the_next(source: Source, file: Path, cache: Cache) -> None:
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
def test_a_cache_decodes_everything_once(source: Source, file: Path, cache: Cache) -> None:
    pixels = opened(source, cache, file)
    pixels.take(np.arange(COUNT))
    pixels.take(np.arange(COUNT))
    assert source.reads == dict.fromkeys(range(COUNT), 1)


@pytest.mark.parametrize("cache", ["none", "ram", "device"])
def test_only_the_disk_cache_writes(source: Source, file: Path, cache: Cache) -> None:
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
    assert not file.exists()
    assert torch.equal(opened(source, "disk", file).take(np.arange(COUNT)), torch.from_numpy(source.array))


def test_a_full_disk_is_told_before_anything_is_decoded(
    source: Source, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, COUNT * 60))
    with pytest.raises(InputError, match=r"GB are free; make room, or give cache: none") as caught:
        opened(source, "disk", file)
    assert str(file.parent) in str(caught.value)
    assert not source.reads
    assert not file.exists()


@pytest.mark.parametrize("cache", CACHES)
def test_a_picture_that_cannot_be_read_stops_the_work(file: Path, cache: Cache) -> None:
    reads: list[int] = []

    def read(row: int) -> NDArray[np.uint8]:
        reads.append(row)
        raise ValueError(f"picture {row} is gone")

    with pytest.raises(ValueError, match="picture 0 is gone"):
        open_pixels(read, 5000, (1, 2, 2), cache, file=file, device=torch.device("cpu"), num_threads=2).take(
            np.arange(1)
        )
    assert len(reads) < 5000, "everything that waited was still read"
