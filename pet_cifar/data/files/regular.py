"""Reads files that may come from anyone: no pipe is waited for, and no device and no giant file is read without end."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 512 * 2**20
"""A file of more bytes, or one that unpacks to more, is not read, because it may be meant to fill the memory."""


def is_endless(status: os.stat_result) -> bool:
    """Whether this is a pipe, a socket or a device, of which nobody knows when it ends."""
    # Opening a directory has an error of its own.
    return not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def check_regular(path: Path) -> None:
    """Refuses what is no file with an end, before it is opened.

    Raises:
        OSError: It is a pipe, a socket or a device, or is not there.
    """
    if is_endless(path.stat()):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and no file", str(path))


def read_regular(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: It is no file, has more than `MAX_BYTES`, or cannot be read.
    """
    check_regular(path)
    if path.stat().st_size > MAX_BYTES:
        raise OSError(errno.EINVAL, f"it has more than {MAX_BYTES // 2**20} MB", str(path))
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: It is no file, has more than `MAX_BYTES`, or cannot be read.
        ValueError: It is no JSON, or its parts lie too deep within each other.
    """
    try:
        return json.loads(read_regular(path).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("its parts lie too deep within each other") from error
