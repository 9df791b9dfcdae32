"""Pixels decoded once and kept: not at all, in memory, as a memory-mapped file, or on the device."""

import math
import os
import shutil
import threading
import tokenize
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.parallel import in_threads
from pet_cifar.data.pixels.memmap import MappedArray
from pet_cifar.data.pixels.placement import Place, part_of
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.hardware import available_memory

FLUSHED = 16 * 10**6
"""Bytes of decoded pictures that are sent to the disk while the next ones are decoded."""
NO_CACHE = ", or give cache: none"
"""What else can be done where a file cannot be written."""

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
    """The whole set on the device; only row numbers cross from the host."""

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

    Raises:
        InputError: there is no room, the file cannot be written, or ``read`` gives something else.
    """

    def checked(row: int) -> NDArray[np.uint8]:
        pixels = read(row)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise InputError(
                f"picture {row} was read as {pixels.dtype} of shape {pixels.shape}; the data module's read must give "
                f"uint8 of shape {shape}"
            )
        return pixels

    if cache == "none":
        return DecodedPixels(checked, num_threads)
    needed = count * math.prod(shape)
    in_memory = cache == "ram" or (cache == "device" and device.type == "cpu")
    if in_memory and (memory := available_memory()) < needed:
        raise InputError(
            f"the decoded pictures need {needed / 1e9:.1f} GB of memory and {memory / 1e9:.1f} GB are available; "
            "give cache: disk, or none"
        )
    if cache == "ram":
        array = np.empty((count, *shape), np.uint8)
        _decode_all(checked, count, array.__setitem__, num_threads)
        return ArrayPixels(array)
    _build(checked, count, shape, file, num_threads)
    pixels = FilePixels(file)
    if cache == "disk":
        return pixels
    try:
        return DevicePixels(pixels.mapped.array, device)
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"the decoded pictures need {needed / 1e9:.1f} GB on {device}, which has no such room; give cache: disk"
        ) from error


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
    except (ValueError, EOFError, tokenize.TokenError):  # no other: a file that cannot be opened just now may be good
        return False
    return array.shape == shape and array.dtype == np.uint8


def _build(read: Read, count: int, shape: Shape, file: Path, num_threads: int) -> None:
    if _is_whole(file, (count, *shape)):
        return
    with locked(file, NO_CACHE):
        if _is_whole(file, (count, *shape)):
            return
        part = part_of(file)
        # moved into place when complete: a killed build is never half-used
        part.unlink(missing_ok=True)
        needed, free = count * math.prod(shape), shutil.disk_usage(file.parent).free
        if free < needed * 1.05:
            raise InputError(
                f"the decoded pictures need {needed / 1e9:.1f} GB in {file.parent} and {free / 1e9:.1f} GB are "
                "free; make room, or give cache: none"
            )
        try:
            _write(read, count, shape, part, num_threads)
            with disk_errors(file, NO_CACHE):
                part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _write(read: Read, count: int, shape: Shape, file: Path, num_threads: int) -> None:
    size = math.prod(shape)
    pictures_a_flush = max(1, FLUSHED // size)
    turn = threading.Lock()
    flushes: list[Future[None]] = []
    with disk_errors(file, NO_CACHE):
        stream = file.open("wb", buffering=0)
    with stream, ThreadPoolExecutor(1, thread_name_prefix="disk") as disk:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        with disk_errors(file, NO_CACHE):
            np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()

        def put(row: int, pixels: NDArray[np.uint8]) -> None:
            # written, not mapped: no page faults, and nothing that counts as this process's memory
            rest = np.ascontiguousarray(pixels).data.cast("B")
            with disk_errors(file, NO_CACHE), turn:
                stream.seek(start + row * size)
                while rest:
                    rest = rest[stream.write(rest) :]
            if row % pictures_a_flush == pictures_a_flush - 1:  # so that the end does not wait for the disk
                flushes.append(disk.submit(os.fsync, stream.fileno()))

        _decode_all(read, count, put, num_threads)
        with disk_errors(file, NO_CACHE):
            # each says only once that the disk could not keep something
            for flush in flushes:
                flush.result()
            os.fsync(stream.fileno())
