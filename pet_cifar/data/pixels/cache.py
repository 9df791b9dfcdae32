"""Gives out pixels by row number; they are kept in memory, in a memory-mapped file, on the device, or not at all."""

import math
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.parallel import map_in_threads
from pet_cifar.data.pixels.checksum import SIZE, checksum
from pet_cifar.data.pixels.growing import GrowingPixels, Pixels
from pet_cifar.data.pixels.memmap import MemmapArray
from pet_cifar.data.pixels.placement import Placement, partial_file
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.hardware import available_memory

FLUSHED = 16 * 10**6
"""Bytes of decoded pictures that are sent to the disk while the next ones are decoded."""
CHECKED = 512
"""Rows that one thread compares with their checksums at a time."""
NO_CACHE = ", or give cache: none"
"""Ends an error's line: what else the user can do where the file cannot be written."""

Read = Callable[[int], NDArray[np.uint8]]
Shape = tuple[int, int, int]


class DecodedPixels:
    """Decodes at every access, in threads, so that memory is bounded by the batch."""

    def __init__(self, read: Read, num_threads: int) -> None:
        self.read = read
        self._pool = ThreadPoolExecutor(max(1, num_threads), thread_name_prefix="decode")

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Decodes these rows."""
        return torch.from_numpy(np.stack(list(self._pool.map(self.read, rows.tolist()))))


class ArrayPixels:
    """Looks rows up in an array in memory."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows."""
        return torch.from_numpy(self.array[rows])


class FilePixels:
    """Looks rows up in a file, and compares each with its checksum when it is first asked for.

    Raises:
        InputError: In ``take``, a row is not what was written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.memmap = MemmapArray(file)
        self.checksums = self.memmap.rest.reshape(-1, SIZE)
        self._checked = np.zeros(len(self.checksums), np.bool_)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows."""
        found = self.memmap.take(rows)
        for place in np.flatnonzero(~self._checked[rows]).tolist():
            self._check(int(rows[place]), found[place])
        self._checked[rows] = True
        return torch.from_numpy(found)

    def check_all(self, num_threads: int) -> None:
        """Compares every row at once, which is for those that read past `take`."""

        def check(first: int) -> None:
            for row in range(first, min(first + CHECKED, len(self.checksums))):
                self._check(row, self.memmap.array[row])

        blocks = range(0, len(self.checksums), CHECKED)
        for _ in map_in_threads(check, blocks, num_threads, "checking decoded pictures"):
            pass
        self._checked[:] = True

    def _check(self, row: int, pixels: NDArray[np.uint8]) -> None:
        if checksum(pixels.data) != self.checksums[row].tobytes():
            raise InputError(
                f"{self.file} was changed or damaged: picture {row} in it is not what was decoded; delete the file, "
                "and run again to decode anew"
            )


class DevicePixels:
    """Keeps the whole set on the device, so that only row numbers cross from the host."""

    def __init__(self, array: NDArray[np.uint8], device: torch.device) -> None:
        self.tensor = torch.tensor(array, device=device)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Picks these rows on the device."""
        numbers = torch.from_numpy(rows)
        if self.tensor.is_cuda:
            # A copy from pageable memory would wait until the device has done all its work.
            numbers = numbers.pin_memory().to(self.tensor.device, non_blocking=True)
        return self.tensor[numbers]


def open_pixels(
    read: Read,
    count: int,
    shape: Shape,
    cache: Placement,
    *,
    file: Path,
    device: torch.device,
    num_threads: int,
    growing: GrowingPixels | None = None,
) -> Pixels:
    """Makes pictures available by row number.

    Args:
        read: Decodes one row to uint8 of ``shape``; it is called from several threads at once.
        count: The number of rows.
        shape: The shape (C, H, W) of one picture.
        cache: With ``none`` every access decodes; ``ram`` decodes once into memory; ``disk`` decodes once into
            ``file``, which all runs and processes share; ``device`` copies that file onto ``device``.
        file: The file of ``disk`` and ``device``. Its name must follow from its content, so that another content has
            another name.
        device: The device that holds the copy with ``device``.
        num_threads: The number of pictures that are decoded at a time.
        growing: Is told of every picture that is decoded into memory or into the file.

    Raises:
        InputError: There is no room, the file cannot be written, or ``read`` gives something else.
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
        if growing is not None:
            growing.begin(array.__getitem__)
        _decode_all(checked, count, array.__setitem__, num_threads, growing)
        return ArrayPixels(array)
    _build(checked, count, shape, file, num_threads, growing)
    pixels = FilePixels(file)
    if cache == "disk":
        return pixels
    pixels.check_all(num_threads)
    try:
        return DevicePixels(pixels.memmap.array, device)
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"the decoded pictures need {needed / 1e9:.1f} GB on {device}, which has no such room; give cache: disk"
        ) from error


def channel_statistics(pixels: Pixels, count: int, most: int) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of each channel over (at most ``most`` of) ``count`` pictures, in [0, 1]."""
    rows = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    total: NDArray[np.float64] | float = 0.0
    for chunk in np.array_split(rows, -(-len(rows) // 64)):
        image = pixels.take(chunk).cpu().numpy().astype(np.float64) / 255
        total = total + np.stack([image.mean((0, 2, 3)), (image**2).mean((0, 2, 3))]) * len(chunk)
    mean, square = np.asarray(total) / len(rows)
    # With a lower bound a constant channel divides nothing by zero.
    return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 1e-6)).tolist()


def _decode_all(
    read: Read,
    count: int,
    put: Callable[[int, NDArray[np.uint8]], object],
    num_threads: int,
    growing: GrowingPixels | None,
) -> None:
    def decode(row: int) -> None:
        put(row, read(row))
        if growing is not None:
            growing.add(row)

    for _ in map_in_threads(decode, range(count), num_threads, "decoding pictures"):
        pass


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    """Tells whether the file is there and holds an array of this shape with its checksums, or is to be made anew."""
    if not file.exists():
        return False
    try:
        kept = MemmapArray(file)
    except ValueError:
        # Other errors are passed on: a file that cannot be opened at this moment may be good.
        return False
    array = kept.array
    return array.shape == shape and array.dtype == np.uint8 and len(kept.rest) == shape[0] * SIZE


def _build(read: Read, count: int, shape: Shape, file: Path, num_threads: int, growing: GrowingPixels | None) -> None:
    if _is_whole(file, (count, *shape)):
        return
    with locked(file, NO_CACHE):
        if _is_whole(file, (count, *shape)):
            return
        part = partial_file(file)
        # The file is moved into place when it is complete, so that what a killed process left is never used.
        part.unlink(missing_ok=True)
        needed, free = count * math.prod(shape), shutil.disk_usage(file.parent).free
        if free < needed * 1.05:
            raise InputError(
                f"the decoded pictures need {needed / 1e9:.3g} GB in {file.parent} and {free / 1e9:.3g} GB are "
                "free; make room, or give cache: none"
            )
        try:
            _write(read, count, shape, part, num_threads, growing)
            with disk_errors(file, NO_CACHE):
                part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _write(read: Read, count: int, shape: Shape, file: Path, num_threads: int, growing: GrowingPixels | None) -> None:
    size = math.prod(shape)
    pictures_a_flush = max(1, FLUSHED // size)
    turn = threading.Lock()
    flushes: list[Future[None]] = []
    checksums = np.zeros((count, SIZE), np.uint8)
    with disk_errors(file, NO_CACHE):
        stream = file.open("w+b", buffering=0)
    with stream, ThreadPoolExecutor(1, thread_name_prefix="disk") as disk:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        with disk_errors(file, NO_CACHE):
            np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()

        def put(row: int, pixels: NDArray[np.uint8]) -> None:
            # Writing costs no page faults and no memory of this process, as a mapped file would.
            rest = np.ascontiguousarray(pixels).data.cast("B")
            checksums[row] = np.frombuffer(checksum(rest), np.uint8)
            with disk_errors(file, NO_CACHE), turn:
                stream.seek(start + row * size)
                while rest:
                    rest = rest[stream.write(rest) :]
            if row % pictures_a_flush == pictures_a_flush - 1:
                # Pictures go to the disk all the while, so that the end does not wait for it.
                flushes.append(disk.submit(os.fsync, stream.fileno()))

        def peek(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
            found = np.empty((len(rows), *shape), np.uint8)
            with disk_errors(file, NO_CACHE), turn:
                for row, pixels in zip(rows.tolist(), found, strict=True):
                    stream.seek(start + row * size)
                    rest = pixels.data.cast("B")
                    while rest:
                        rest = rest[stream.readinto(rest) :]
            return found

        if growing is not None:
            growing.begin(peek)
        try:
            _decode_all(read, count, put, num_threads, growing)
        finally:
            if growing is not None:
                growing.end()
        with disk_errors(file, NO_CACHE):
            stream.seek(start + count * size)
            stream.write(checksums.tobytes())
            # The system reports only once, to one flush, that the disk could not keep something.
            for flush in flushes:
                flush.result()
            os.fsync(stream.fileno())
