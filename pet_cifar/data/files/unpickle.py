"""Reads the pickles that CIFAR-10 comes in without running anything that they ask for."""

import math
import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pet_cifar.errors import InputError

_REMEDY = "get the file from its source"
# Damaged bytes raise errors of many kinds: an impossible length raises OSError, ArithmeticError or MemoryError.
_GARBAGE = (
    *(EOFError, OSError, ValueError, ArithmeticError, MemoryError),
    *(pickle.UnpicklingError, AttributeError, LookupError, RecursionError, TypeError),
)


def read_pickle(stream: BinaryIO) -> object:
    """Reads a batch of CIFAR-10 or CIFAR-100, as Python 2 pickled it, without running anything that it asks for.

    Args:
        stream: An open binary file.

    Returns:
        Numpy arrays, bytes, strings, numbers, None, and lists, tuples and dicts of these. Strings of Python 2, the
        keys among them, are bytes.

    Raises:
        InputError: The pickle is damaged or holds anything else.
    """
    source = getattr(stream, "name", "the pickle")
    try:
        return _plain(_Unpickler(stream, encoding="bytes").load(), {})
    except InputError as error:
        raise InputError(f"{source} is refused: {' '.join(str(error).split())}; {_REMEDY}") from error
    except _GARBAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{source} is damaged or no pickle: {reason}; delete it and unpack or download it again"
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise InputError(f"it asks for {module}.{name}, which no picture needs") from None


class _Type:
    """Stands in for `numpy.dtype`, so that numpy sees only states that were checked."""

    def __init__(self, code: str | bytes, *_flags: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", self.code):
            raise InputError(f"it holds an array of type {self.code!r}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
            raise InputError("it holds an array with fields, not of numbers")
        self.code = order + self.code


class _Array:
    """Stands in for `numpy.ndarray`."""

    array: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, fortran, data = state
        dtype = np.dtype(kind.code)
        if type(data) is not bytes or len(data) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        self.array = np.ndarray(shape, dtype, data, order="F" if fortran else "C").copy(order="K")


def _encode(text: str, codec: str | bytes) -> bytes:
    """Makes bytes of text, which is how Python 3 writes bytes in protocol 2."""
    if codec not in ("latin1", b"latin1"):
        raise ValueError(f"bytes are written in {codec!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, code: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    # Python 3 calls this for empty bytes in protocol 2. The real `bytes` could be asked for any length.
    ("__builtin__", "bytes"): lambda: b"",
}


def _plain(value: object, seen: dict[int, object]) -> object:
    """Replaces the stand-ins by numpy's arrays, and refuses all but plain values."""
    if id(value) in seen:
        # A pickle can refer to one value from so many places that visiting it in each would never end.
        return seen[id(value)]
    result = value
    if isinstance(value, _Array) and value.array is not None:
        result = value.array
    elif type(value) is dict:
        result = {_plain(key, seen): _plain(item, seen) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_plain(item, seen) for item in value)
    elif value is not None and type(value) not in (bytes, str, bool, int, float):
        raise InputError(f"it holds a {type(value).__name__}, not only arrays, texts and numbers")
    seen[id(value)] = result
    return result
