"""Reads files of torch that may come from anyone, into no more memory than they have bytes."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pet_cifar.data.files.regular import check_regular

_ZIP = b"PK\3\4"


def read_tensors(path: Path) -> Any:
    """Reads what ``torch.save`` has written: tensors, numbers, strings, and lists and mappings of these.

    torch itself refuses a tensor that claims more bytes than its part of the file has. But a part may be compressed,
    which ``torch.save`` never does, and a single number may stand for any number of them.

    Args:
        path: The file.

    Raises:
        ValueError: It claims more numbers than it holds.
        Exception: It is damaged, or holds code; torch raises different errors for different kinds of damage.
    """
    check_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > size:
            raise ValueError(f"its parts unpack to {unpacked} bytes, and the file has {size}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    for tensor in _tensors(content, set()):
        held = tensor.untyped_storage().nbytes()
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > held:
            raise ValueError(f"a tensor of the shape {tuple(tensor.shape)} has only {held} bytes")
    return content


def _tensors(content: object, seen: set[int]) -> Iterator[Tensor]:
    if id(content) in seen:
        return
    seen.add(id(content))
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value, seen)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value, seen)
