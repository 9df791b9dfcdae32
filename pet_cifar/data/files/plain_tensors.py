"""Reads files of torch that may come from anyone, into no more memory than they have bytes."""

import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pet_cifar.data.files.regular import check_regular

_ZIP, _END, _LOCATOR = b"PK\3\4", b"PK\5\6", b"PK\6\7"
"""How a zip file begins, and how two parts of its end do: the last one, and the one that tells of a large list."""
_LONGEST_END = 22 + 0xFFFF
_END_64 = 76
"""The bytes before the last part that tell of a large list of parts."""
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
        if archive.start_dir != _told_place(file, size):
            raise ValueError("its list of parts is not where its end says")
        # torch takes capitals for small letters.
        pickles = [part for part in archive.infolist() if part.filename.lower().endswith("data.pkl")]
        _refuse_bytes(any(_BYTES in archive.read(part) for part in pickles))


def _told_place(file: BinaryIO, size: int) -> int | None:
    """Where the list of a zip file's parts begins by what its end says; None where two ends contradict each other."""
    begin = file.seek(max(0, size - _LONGEST_END - _END_64))
    tail = file.read()
    end = tail.rfind(_END)
    place: int
    if end >= _END_64 and tail[end - 20 : end].startswith(_LOCATOR):
        (large,) = struct.unpack_from("<Q", tail, end - 12)
        (place,) = struct.unpack_from("<Q", tail, end - _END_64 + 48)
        return place if large == begin + end - _END_64 else None
    (place,) = struct.unpack_from("<I", tail, end + 16)
    return place


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
