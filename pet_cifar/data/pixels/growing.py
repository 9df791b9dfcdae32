"""Pictures that can be used while the others are still being decoded."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Pixels(Protocol):
    """Pictures by row number."""

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns the pictures of these rows: uint8, shape (len(rows), C, H, W)."""


class GrowingPixels:
    """Decodes all pictures in a thread of its own from the first access on; an access waits for its own rows alone.

    Args:
        count: The number of pictures.
        decode: Decodes all of them and returns them. It gets this object and tells it with `begin`, `add` and `end`
            how far it is; where it tells nothing, an access waits until all pictures are there.
    """

    def __init__(self, count: int, decode: "Callable[[GrowingPixels], Pixels]") -> None:
        self._decode = decode
        self._there = np.zeros(count, np.bool_)
        self._changed = threading.Condition()
        self._peek: Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None = None
        self._whole: Future[Pixels] | None = None
        self._is_stopped = False
        # What each access still waits for; it is woken once for all its rows.
        self._missing: list[set[int]] = []

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows once they are decoded; what decoding raises is raised here."""
        with self._changed:
            if self._whole is None:
                self._whole = Future()
                # A thread that waits for another process must not keep this one from ending.
                threading.Thread(target=self._run, args=[self._whole], name="growing", daemon=True).start()
            whole, missing = self._whole, set(rows[~self._there[rows]].tolist())
            self._missing.append(missing)
            self._changed.wait_for(lambda: whole.done() or (self._peek is not None and not missing))
            self._missing.remove(missing)
            if self._peek is not None and not whole.done():
                return torch.from_numpy(self._peek(rows))
        return whole.result().take(rows)

    def whole(self) -> Pixels | None:
        """All pictures, once they are there; None where none was ever asked for."""
        return None if self._whole is None else self._whole.result()

    def stop(self) -> None:
        """Ends the decoding, and waits until it has cleared away what it leaves."""
        with self._changed:
            self._is_stopped = True
            decodes = self._peek is not None
        if self._whole is not None and decodes:
            wait([self._whole])

    def _run(self, whole: Future[Pixels]) -> None:
        try:
            whole.set_result(self._decode(self))
        except BaseException as error:  # Whoever takes pictures is told.
            whole.set_exception(error)
        with self._changed:
            self._changed.notify_all()

    # What tells how far the decoding is

    def begin(self, peek: Callable[[NDArray[np.int64]], NDArray[np.uint8]]) -> None:
        """From now on ``peek`` reads rows that were added."""
        with self._changed:
            self._peek = peek

    def add(self, row: int) -> None:
        """A row can be read now.

        Raises:
            CancelledError: Nobody wants the pictures any more.
        """
        with self._changed:
            if self._is_stopped:
                raise CancelledError
            self._there[row] = True
            for missing in self._missing:
                missing.discard(row)
            if not all(self._missing):
                self._changed.notify_all()

    def end(self) -> None:
        """From now on ``peek`` cannot read, and all wait until the pictures are opened."""
        with self._changed:
            self._peek = None
