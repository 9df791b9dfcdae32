"""Reads the pickles that CIFAR-10 comes in without running anything that they ask for.

A pickle is a program. Python's own reader can be kept from calling what a file names, but a few bytes still let it fill
64 GB, or compute a hash for ever. So the few instructions that arrays and lists need are followed here.
"""

import math
import pickle
import pickletools
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
_LONGEST_REASON = 300


def read_pickle(stream: BinaryIO) -> object:
    """Reads a batch of CIFAR-10 or CIFAR-100, as Python 2 pickled it, without running anything that it asks for.

    Args:
        stream: An open binary file.

    Returns:
        Numpy arrays, bytes, strings, numbers, None, and lists, tuples and dicts of these. Strings of Python 2, the
        keys among them, are bytes; in the oldest protocol, which is text, they hold nothing but ASCII.

    Raises:
        InputError: The pickle is damaged or holds anything else.
    """
    source = getattr(stream, "name", "the pickle")
    try:
        return _plain(_followed(stream), {})
    except InputError as error:
        raise InputError(f"{source} is refused: {_in_a_line(error)}; {_REMEDY}") from error
    except _GARBAGE as error:
        raise InputError(
            f"{source} is damaged or no pickle: {_in_a_line(error)}; delete it and unpack or download it again"
        ) from error


def _in_a_line(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."


def _followed(stream: BinaryIO) -> object:
    """What the instructions of a pickle make."""
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(stream):
        match instruction.name:
            case "BININT1" | "BININT2" | "BININT" | "LONG1" | "LONG4" | "INT" | "LONG" | "FLOAT" | "BINFLOAT":
                stack.append(argument)
            case "SHORT_BINSTRING" | "BINSTRING" | "STRING":
                stack.append(argument.encode("latin1"))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "UNICODE" | "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_WORDS.get(instruction.name, argument))
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "APPEND":
                item = stack.pop()
                _list_in(stack).append(item)
            case "SETITEM":
                pair = [stack.pop(-2), stack.pop()]
                _fill(stack[-1], pair)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(instruction.name[-1])
                if len(stack) < count:
                    raise IndexError("a tuple has too few items")
                stack[-count:] = [tuple(stack[-count:])]
            case "APPENDS" | "SETITEMS" | "LIST" | "DICT" | "TUPLE" | "POP_MARK":
                items, stack = stack, below.pop()
                match instruction.name:
                    case "APPENDS":
                        _list_in(stack).extend(items)
                    case "SETITEMS":
                        _fill(stack[-1], items)
                    case "LIST":
                        stack.append(items)
                    case "TUPLE":
                        stack.append(tuple(items))
                    case "DICT":
                        stack.append(_fill({}, items))
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "GLOBAL":
                stack.append(_named(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(f"{module} {name}" if type(module) is type(name) is str else "its own"))
            case "REDUCE":
                given, function = stack.pop(), stack.pop()
                if not any(function is one for one in _ALLOWED.values()):
                    raise InputError("it calls what is no function")
                stack.append(function(*given))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Type | _Array):
                    raise InputError("it changes what is no array")
                stack[-1].set_state(state)
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case _:
                raise InputError(f"it has the instruction {instruction.name}, which no picture needs")
    raise EOFError("it ends without an end mark")


_WORDS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _list_in(stack: list[Any]) -> list[Any]:
    if type(stack[-1]) is not list:
        raise TypeError("items are added to what is no list")
    return stack[-1]


def _fill(found: object, items: list[Any]) -> dict[Any, Any]:
    """Adds keys and values, which alternate, to a dict; only texts are keys, since tuples can take forever to hash."""
    if type(found) is not dict or len(items) % 2:
        raise TypeError("keys and values are added to what is no dict, or a value is missing")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (bytes, str):
            raise InputError(f"it holds a dict with a {type(key).__name__} for a key, not a text")
        found[key] = value
    return found


def _named(name: str) -> Callable[..., Any]:
    """The stand-in for what a pickle names, such as ``numpy dtype``."""
    if name not in _ALLOWED:
        raise InputError(f"it asks for {name.replace(' ', '.')}, which no picture needs")
    return _ALLOWED[name]


class _Type:
    """Stands in for `numpy.dtype`, so that numpy sees only states that were checked."""

    def __init__(self, code: str | bytes, *_flags: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", self.code):
            raise InputError(f"it holds an array of type {self.code!r}, not of numbers")

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Takes the byte order; the rest of the state is that of arrays with fields."""
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
            raise InputError("it holds an array with fields, not of numbers")
        self.code = order + self.code


class _Array:
    """Stands in for `numpy.ndarray`."""

    array: NDArray[Any] | None = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Takes shape, type and bytes."""
        _version, shape, kind, fortran, data = state
        dtype = np.dtype(kind.code)
        # Parts of other kinds could grow without end when they are multiplied or written out.
        if len(shape) > _MOST_SIDES or not all(type(side) is int and 0 <= side < 2**40 for side in shape):
            raise ValueError("an array has no shape of numbers")
        if type(data) is not bytes or len(data) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        self.array = np.ndarray(shape, dtype, data, order="F" if fortran else "C").copy(order="K")


def _encode(text: str, codec: str | bytes) -> bytes:
    """Makes bytes of text, which is how Python 3 writes bytes in protocol 2."""
    if codec not in ("latin1", b"latin1"):
        raise ValueError("bytes are written in another code than latin1")
    return text.encode("latin1")


_MOST_SIDES = 8
_ALLOWED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray _reconstruct": lambda kind, shape, code: _Array(),
    "numpy._core.multiarray _reconstruct": lambda kind, shape, code: _Array(),
    "numpy ndarray": _Array,
    "numpy dtype": _Type,
    "_codecs encode": _encode,
    # Python 3 calls this for empty bytes in protocol 2. The real `bytes` could be asked for any length.
    "__builtin__ bytes": lambda: b"",
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
