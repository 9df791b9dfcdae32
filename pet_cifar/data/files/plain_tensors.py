"""Reads files of torch that may come from anyone, into no more memory than they have bytes."""

import mmap
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.files.zip_end import read_zip_end

_ZIP = b"PK\3\4"
"""How a zip file begins."""
_BYTES = b"\nbytearray\n"
"""How a pickle names the one class among those that torch allows of which a number makes as many bytes."""


def read_tensors(path: Path, *, mapped: bool = False) -> Any:
    """Reads what ``torch.save`` has written: tensors, numbers, strings, and lists and mappings of these.

    torch itself refuses a tensor that claims more bytes than its part of the file has. But a part may be compressed,
    which ``torch.save`` never does, and a single number may stand for any number of them.

    Args:
        path: The file.
        mapped: Whether the numbers are read when they are asked for, from a file that is a zip archive.

    Raises:
        ValueError: It claims more numbers than it holds.
        Exception: It is damaged, or holds code; torch raises different errors for different kinds of damage.
    """
    check_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            _check_parts(file, size)
        elif size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                _refuse_bytes(whole.find(_BYTES) >= 0)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    for tensor in _tensors(content, set()):
        held = tensor.untyped_storage().nbytes()
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > held:
            raise ValueError(f"a tensor of the shape {tuple(tensor.shape)} has only {held} bytes")
    return content


def _check_parts(file: BinaryIO, size: int) -> None:
    """Refuses a zip file whose parts unpack to more than it has bytes, or make more of them.

    Raises:
        ValueError: It does, or torch would find other parts in it than these.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > size:
            raise ValueError(f"its parts unpack to {unpacked} bytes, and the file has {size}")
        # Python finds the list of parts by its length from the end, torch by the place that the end tells.
        end = read_zip_end(file)
        if end is None or archive.start_dir != end.start:
            raise ValueError("its list of parts is not where its end says")
        # torch takes capitals for small letters.
        pickles = [part for part in archive.infolist() if part.filename.lower().endswith("data.pkl")]
        _refuse_bytes(any(_BYTES in archive.read(part) for part in pickles))


def _refuse_bytes(found: bool) -> None:
    if found:
        raise ValueError("it asks for any number of bytes, which neither tensors nor numbers and strings do")


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
