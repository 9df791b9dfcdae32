"""Reads rows of an array in a file without keeping the file's size in memory."""

import mmap
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet_cifar.data.files.regular import check_regular

RESIDENT = 256 * 10**6
"""Bytes up to which a file may stay in this process's memory once it was read."""


class MemmapArray:
    """A memory-mapped ``.npy`` file; a large one gives its pages back after every access.

    The pages stay in the system's own cache, which all processes share; seeing one again costs a page fault.

    Args:
        file: A file that numpy has written.

    Raises:
        ValueError: The file is no whole ``.npy`` file.

    Attributes:
        array: The whole array, read-only.
        rest: The bytes of the file behind the array, which numpy passes over, shape (n,).
    """

    def __init__(self, file: Path) -> None:
        check_regular(file)
        try:
            self._read(file)
        # What is wrong with a header ends in one or another of these, since numpy reads it as Python's own text.
        except (ArithmeticError, EOFError, MemoryError, RecursionError, SyntaxError, TypeError, TokenError) as error:
            raise ValueError(f"{file} is no whole array: {error}") from error

    def _read(self, file: Path) -> None:
        with file.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            # frombuffer raises ValueError where the file is shorter than its header tells.
            flat: NDArray[Any] = np.frombuffer(self._map, dtype, int(np.prod(shape)), stream.tell())
            self.rest: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8, offset=stream.tell() + flat.nbytes)
        self.array = flat.reshape(shape)
        self._gives_back = flat.nbytes > RESIDENT and hasattr(mmap, "MADV_DONTNEED")

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Returns a copy of these rows."""
        found = self.array[rows]
        self.give_back()
        return found

    def give_back(self) -> None:
        """Takes what was read out of this process's memory, where the file is large."""
        if self._gives_back:
            self._map.madvise(mmap.MADV_DONTNEED)
