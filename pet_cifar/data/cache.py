"""Pixels decoded once and kept: not at all, in memory, as a memory-mapped file, or on the device."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pet_cifar.errors import InputError

Cache = Literal["none", "ram", "disk", "device"]
Read = Callable[[int], NDArray[np.uint8]]
Shape = tuple[int, int, int]


class Pixels(Protocol):
    """Pictures by row number."""

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The pictures of these rows: uint8, shape (len(rows), C, H, W)."""


class DecodedPixels:
    """Decodes at every access, in threads; memory stays bounded by the batch."""

    def __init__(self, read: Read, num_threads: int) -> None:
        self.read = read
        self._pool = ThreadPoolExecutor(max(1, num_threads), thread_name_prefix="decode")

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Decodes these rows."""
        return torch.from_numpy(np.stack(list(self._pool.map(self.read, rows.tolist()))))


class ArrayPixels:
    """Looks up in an array, which may be a memory-mapped file."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows."""
        return torch.from_numpy(self.array[rows])


class DevicePixels:
    """The whole set on the device; a batch never crosses from the host."""

    def __init__(self, array: NDArray[np.uint8], device: torch.device) -> None:
        self.tensor = torch.tensor(array, device=device)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Picks these rows, on the device."""
        return self.tensor[torch.from_numpy(rows).to(self.tensor.device)]


def open_pixels(
    read: Read,
    count: int,
    shape: Shape,
    cache: Cache,
    *,
    file: Path,
    device: torch.device,
    num_threads: int,
) -> Pixels:
    """Makes pictures available by row number.

    Args:
        read: decodes one row to uint8 of ``shape``; called from several threads at once.
        count: number of rows.
        shape: (C, H, W) of one picture.
        cache: ``none`` decodes at every access; ``ram`` once into memory; ``disk`` once into ``file``, which further
            runs and processes share; ``device`` once onto ``device``.
        file: for ``disk``; its name must say what it holds, so that another content has another name.
        device: for ``device``.
        num_threads: pictures decoded at a time.
    """
    if cache == "none":
        return DecodedPixels(read, num_threads)
    if cache == "disk":
        return ArrayPixels(_open_file(read, count, shape, file, num_threads))
    array = np.empty((count, *shape), np.uint8)
    _fill(array, read, num_threads)
    return DevicePixels(array, device) if cache == "device" else ArrayPixels(array)


def channel_statistics(pixels: Pixels, count: int, most: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over (at most ``most`` of) ``count`` pictures, in [0, 1]."""
    rows = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    total: NDArray[np.float64] | float = 0.0
    for chunk in np.array_split(rows, -(-len(rows) // 64)):
        image = pixels.take(chunk).cpu().numpy().astype(np.float64) / 255
        total = total + np.stack([image.mean((0, 2, 3)), (image**2).mean((0, 2, 3))]) * len(chunk)
    mean, square = np.asarray(total) / len(rows)
    # a constant channel must not divide by zero
    return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist()


def _fill(array: NDArray[np.uint8], read: Read, num_threads: int) -> None:
    def put(row: int) -> None:
        array[row] = read(row)

    with ThreadPoolExecutor(max(1, num_threads)) as pool:
        bar = tqdm(total=len(array), desc="decoding pictures", unit="", disable=None, leave=False)
        with bar, _cancel_on_error(pool):
            for _ in pool.map(put, range(len(array))):
                bar.update()


@contextmanager
def _cancel_on_error(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Ctrl-C or a bad picture stops now, not after everything that waits in the pool."""
    try:
        yield
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _open_file(read: Read, count: int, shape: Shape, file: Path, num_threads: int) -> NDArray[np.uint8]:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(file.name + ".lock")):
            if not file.exists():
                needed = count * int(np.prod(shape))
                free = shutil.disk_usage(file.parent).free
                if free < needed * 1.05:
                    raise InputError(
                        f"the decoded pictures need {needed / 1e9:.1f} GB in {file.parent} and {free / 1e9:.1f} GB are "
                        "free; make room, or give cache: none"
                    )
                # moved into place when complete: a killed build is never half-used
                part = file.with_name(file.name + ".part")
                array = np.lib.format.open_memmap(part, "w+", np.uint8, (count, *shape))
                _fill(array, read, num_threads)
                array.flush()
                part.replace(file)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]
