"""Pixels decoded once and kept: not at all, in memory, as a memory-mapped file, or on the device."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.mapped import MappedArray
from pet_cifar.data.threads import in_threads
from pet_cifar.errors import InputError

Cache = Literal["auto", "none", "ram", "disk", "device"]
Place = Literal["none", "ram", "disk", "device"]
FLUSHED = 16 * 10**6
"""Bytes of decoded pictures that are sent to the disk while the next ones are decoded."""

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
    """Looks up in an array in memory."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows."""
        return torch.from_numpy(self.array[rows])


class FilePixels:
    """Looks up in a file."""

    def __init__(self, file: Path) -> None:
        self.mapped = MappedArray(file)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows."""
        return torch.from_numpy(self.mapped.take(rows))


class DevicePixels:
    """The whole set on the device; a batch never crosses from the host."""

    def __init__(self, array: NDArray[np.uint8], device: torch.device) -> None:
        self.tensor = torch.tensor(array, device=device)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Picks these rows, on the device."""
        numbers = torch.from_numpy(rows)
        if self.tensor.is_cuda:  # from pageable memory the copy would wait for all that the device has to do
            numbers = numbers.pin_memory().to(self.tensor.device, non_blocking=True)
        return self.tensor[numbers]


def open_pixels(
    read: Read,
    count: int,
    shape: Shape,
    cache: Place,
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
            runs and processes share; ``device`` puts what is in that file onto ``device``.
        file: for ``disk`` and ``device``; its name must say what it holds, so that another content has another name.
        device: for ``device``.
        num_threads: pictures decoded at a time.
    """
    if cache == "none":
        return DecodedPixels(read, num_threads)
    if cache == "ram":
        array = np.empty((count, *shape), np.uint8)
        _decode_all(read, count, array.__setitem__, num_threads)
        return ArrayPixels(array)
    _build(read, count, shape, file, num_threads)
    pixels = FilePixels(file)
    return pixels if cache == "disk" else DevicePixels(pixels.mapped.array, device)


def choose(needed: int, missing: int, directory: Path, device: torch.device) -> tuple[Place, str]:
    """Where decoded pictures are best kept, and why.

    On an accelerator that has four times the room: there, because no batch then waits for the host. Else in a file,
    which all runs share and of which the system keeps in memory what fits. Else in memory, up to half of what is
    available. Else nowhere.

    Args:
        needed: bytes of all pictures.
        missing: bytes of them that are in no file yet.
        directory: of the files.
        device: where the net is.
    """
    size = f"{needed / 1e9:.2f} GB of decoded pictures"
    free = shutil.disk_usage(directory).free
    fits = free >= 1.05 * missing
    if device.type == "cuda" and fits:
        room = torch.cuda.mem_get_info(device)[0]
        if room >= 4 * needed:
            return "device", f"{size}, {room / 1e9:.0f} GB are free on the device"
    if fits:
        return "disk", f"{size}, " + (f"{free / 1e9:.0f} GB are free in {directory}" if missing else f"in {directory}")
    memory = available_memory()
    if memory >= 2 * needed:
        return "ram", f"{size}, {free / 1e9:.2f} GB are free in {directory}, {memory / 1e9:.1f} GB in memory"
    return "none", f"{size}, for which there is room neither in {directory} nor in memory: every epoch decodes anew"


def available_memory() -> float:
    """Bytes that could be taken without swapping; infinite where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    return float("inf")


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


def _decode_all(read: Read, count: int, put: Callable[[int, NDArray[np.uint8]], object], num_threads: int) -> None:
    def decode(row: int) -> None:
        put(row, read(row))

    for _ in in_threads(decode, range(count), num_threads, "decoding pictures"):
        pass


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file is there and holds an array of this shape; a damaged one is made anew."""
    if not file.exists():
        return False
    try:
        array = MappedArray(file).array
    except (ValueError, EOFError):  # but no other: a file that cannot be opened just now may be good
        return False
    return array.shape == shape and array.dtype == np.uint8


def _build(read: Read, count: int, shape: Shape, file: Path, num_threads: int) -> None:
    if not _is_whole(file, (count, *shape)):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(file.name + ".lock")):
            if not _is_whole(file, (count, *shape)):
                needed = count * int(np.prod(shape))
                free = shutil.disk_usage(file.parent).free
                if free < needed * 1.05:
                    raise InputError(
                        f"the decoded pictures need {needed / 1e9:.1f} GB in {file.parent} and {free / 1e9:.1f} GB are "
                        "free; make room, or give cache: none"
                    )
                # moved into place when complete: a killed build is never half-used
                part = file.with_name(file.name + ".part")
                with part.open("wb") as stream:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                    np.lib.format.write_array_header_1_0(stream, header)
                    stream.flush()
                    start, number = stream.tell(), stream.fileno()
                    some = max(1, FLUSHED // int(np.prod(shape)))
                    with ThreadPoolExecutor(1, thread_name_prefix="disk") as disk:

                        def put(row: int, pixels: NDArray[np.uint8]) -> None:
                            # written, not mapped: no page faults, and nothing that counts as this process's memory
                            os.pwrite(number, np.ascontiguousarray(pixels).data, start + row * pixels.nbytes)
                            if row % some == some - 1:  # so that the end does not wait for the disk
                                disk.submit(os.fsync, number)

                        _decode_all(read, count, put, num_threads)
                    os.fsync(number)
                part.replace(file)
