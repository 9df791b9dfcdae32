"""The files of kept features: one for each view of all pictures, whose rows are compared with their checksums."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.files.locking import wait_for
from pet_cifar.data.pixels.checksum import SIZE, checksum
from pet_cifar.data.pixels.memmap import MemmapArray
from pet_cifar.errors import InputError, disk_errors

CHUNK = 32
"""Pictures that are computed and marked as done together; a killed run loses at most these."""
NO_FEATURES = ", or give --model.cache_features false"
"""Ends an error's line: what else the user can do where features cannot be written."""


class FeatureFile:
    """The features of one view of all pictures: an array in a file, and beside it a checksum of each chunk.

    The checksum is zero until the chunk is done.

    Args:
        file: The file of the array.
        count: The number of pictures.
    """

    def __init__(self, file: Path, count: int) -> None:
        self.file = file
        self.done = file.with_suffix(".done")
        self.count = count
        self.chunks = -(-count // CHUNK)

    def is_there(self) -> bool:
        """Whether both files are, and whole."""
        if not (self.file.exists() and self.done.exists()):
            return False
        try:
            whole = MemmapArray(self.file).array
        except ValueError:  # no other error, since files that cannot be opened just now may be good
            whole = np.empty(0)
        return (
            whole.ndim > 0
            and len(whole) == self.count
            and whole.dtype == np.float16
            and self.done.stat().st_size == SIZE * self.chunks
        )

    def create(self, shape: tuple[int, ...]) -> None:
        """Makes the files in their full size, so that other runs see what is taken."""
        with disk_errors(self.file, NO_FEATURES):
            self.remove()
            np.lib.format.open_memmap(self.file, "w+", np.float16, (self.count, *shape))
            self.done.write_bytes(bytes(SIZE * self.chunks))

    def remove(self) -> None:
        """Removes both files; a run that has them open reads on."""
        self.done.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def missing(self) -> list[int]:
        """Lists the chunks that are not done."""
        return np.flatnonzero(~self.checksums().any(axis=1)).tolist()

    def checksums(self) -> NDArray[np.uint8]:
        """The checksums of all chunks, shape (chunks, 8)."""
        return np.frombuffer(self.done.read_bytes(), np.uint8).reshape(-1, SIZE)

    def rows(self, chunk: int) -> NDArray[np.int64]:
        """Row numbers of a chunk."""
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count))

    def write(self, chunk: int, features: NDArray[np.float16]) -> None:
        """Writes one chunk and marks it as done.

        Raises:
            InputError: The disk cannot take it; the chunk then counts as missing.
        """
        with disk_errors(self.file, NO_FEATURES):
            self._write(chunk, features)

    def _write(self, chunk: int, features: NDArray[np.float16]) -> None:
        size = features[0].nbytes
        with self.file.open("r+b") as stream:
            stream.seek(-self.count * size + chunk * CHUNK * size, os.SEEK_END)
            content = features.tobytes()
            stream.write(content)
            # The chunk is marked only when it is on the disk.
            stream.flush()
            os.fsync(stream.fileno())
        with self.done.open("r+b") as stream:
            stream.seek(SIZE * chunk)
            stream.write(checksum(content))

    def claim(self, chunk: int, *, waits: bool) -> FileLock | None:
        """Takes the lock of a chunk, which the process holds that computes it.

        Args:
            chunk: The chunk.
            waits: Whether to wait for another process; else the answer is None where it holds the lock.

        Raises:
            InputError: The disk has no room for the lock, or the other process takes longer than the longest wait.
        """
        # The thread that writes the chunk lets go of it.
        lock = FileLock(self.file.with_suffix(f".{chunk}.lock"), thread_local=False)
        with disk_errors(self.file, NO_FEATURES):
            if waits:
                wait_for(lock, f"features of pictures, {self.file}")
                return lock
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
        return lock


class StoredFeatures:
    """Features by row number; those of several views stand one below the other.

    A chunk is compared with its checksum when a row of it is first asked for.

    Args:
        files: One file for each view.
        count: The number of pictures.

    Raises:
        InputError: In ``take``, a chunk is not what was written.
    """

    def __init__(self, files: Sequence[Path], count: int) -> None:
        self.files = tuple(files)
        self.count = count
        self._views = [MemmapArray(file) for file in files]
        self._checksums = [FeatureFile(file, count).checksums() for file in files]
        self._checked = np.zeros((len(files), -(-count // CHUNK)), np.bool_)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows: float16, shape (len(rows), ...)."""
        places = [divmod(row, self.count) for row in rows.tolist()]
        for view, chunk in {(view, row // CHUNK) for view, row in places}:
            self._check(view, chunk)
        found = np.stack([self._views[view].array[row] for view, row in places])
        for view in {view for view, _ in places}:
            self._views[view].give_back()
        return torch.from_numpy(found)

    def _check(self, view: int, chunk: int) -> None:
        if self._checked[view, chunk]:
            return
        content = self._views[view].array[chunk * CHUNK : (chunk + 1) * CHUNK]
        if checksum(content.data) != self._checksums[view][chunk].tobytes():
            raise InputError(
                f"{self.files[view]} was changed or damaged: it does not hold the features that were computed; delete "
                "the file, and run again to compute them anew"
            )
        self._checked[view, chunk] = True

    def chunks(self, size: int = 256) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """All rows of all views and their features, ``size`` rows at a time; row modulo ``count`` is the picture."""
        rows = np.arange(len(self.files) * self.count)
        for first in range(0, len(rows), size):
            yield rows[first : first + size], self.take(rows[first : first + size])
