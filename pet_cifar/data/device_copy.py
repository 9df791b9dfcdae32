"""Copies of batches to a GPU, made while it still computes the step before."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TypeVar

import torch
from torch import Tensor

Moved = TypeVar("Moved")


class SideStream:
    """A CUDA stream for copies from the host, beside the stream that computes."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def run(self, move: Callable[[], Moved], device: torch.device) -> Moved:
        """Calls ``move``, which copies a batch (a tensor, or a tuple or dataclass of these) to ``device``."""
        self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._stream):
            moved = move()
        computing.wait_stream(self._stream)
        for one in _parts(moved):
            if isinstance(one, Tensor):
                # The allocator must not hand out this memory again before the step that uses it has been computed.
                one.record_stream(computing)
        return moved


def _parts(batch: object) -> tuple[object, ...]:
    if is_dataclass(batch):
        return tuple(getattr(batch, field.name) for field in fields(batch))
    return batch if isinstance(batch, tuple) else (batch,)
