"""Builds the net of a checkpoint that may come from anyone, in no more memory than its size speaks for.

A few letters of a checkpoint can ask for a net of any size. But it holds all tensors of the net that it was saved from,
so that a net which takes much more than the file is another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pet_cifar.errors import InputError

SPARE = 256 * 10**6
"""Bytes that a net may take beside its tensors, such as for an example of its pictures."""
COPIES = 4
"""How often a net may make its tensors while it is built."""
PART = 64_000
"""Bytes that each tensor counts at least, for the layer that it belongs to."""


@contextmanager
def built_within(file: Path) -> Iterator[None]:
    """Lets a net be built within the block, and refuses it as soon as it takes much more memory than a file has.

    Args:
        file: The checkpoint that holds the net's tensors.

    Raises:
        InputError: The net is too large for it.
    """
    with _Allocations(file.name, file.stat().st_size):
        yield


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of new tensors before each is made."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.size = name, size
        self.most = SPARE + COPIES * size
        self.taken = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _makes_new(func):
            shape = func(*args, **{**kwargs, "device": torch.device("meta")})
            self.taken += max(PART, shape.numel() * shape.element_size())
            if self.taken > self.most:
                raise InputError(
                    f"the net takes more than {self.most / 1e6:.0f} MB, which {self.name} with its "
                    f"{self.size / 1e6:.1f} MB cannot hold; give the options that it was trained with, or a "
                    "checkpoint from its source"
                )
        return func(*args, **kwargs)


def _makes_new(func: Any) -> bool:
    """Whether an operation makes a tensor of no other one."""
    arguments = func._schema.arguments
    return any(one.name == "device" for one in arguments) and not any("Tensor" in str(one.type) for one in arguments)
