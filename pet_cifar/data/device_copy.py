"""Copies of batches to a GPU, made while it still computes the step before."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Moved = TypeVar("Moved")


class SideStream:
    """A CUDA stream for copies from the host, beside the stream that computes."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def run(self, move: Callable[[], Moved], device: torch.device) -> Moved:
        """Calls ``move``, which copies a batch (a tensor or a tuple of tensors and numbers) to ``device``."""
        self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._stream):
            moved = move()
        computing.wait_stream(self._stream)
        for one in moved if isinstance(moved, tuple) else (moved,):
            if isinstance(one, Tensor):
                # The allocator must not hand out this memory again before the step that uses it has been computed.
                one.record_stream(computing)
        return moved
