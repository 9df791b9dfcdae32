"""Lets one process at a time make a file that others wait for."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pet_cifar.durations import described, seconds_of
from pet_cifar.errors import ANOTHER_ROOT, InputError, disk_errors

log = logging.getLogger(__name__)

TELL_AFTER = 5.0
"""Seconds of waiting after which a line says on what."""
MAX_WAIT = "PET_CIFAR_MAX_WAIT"
"""The environment variable with the longest wait, such as ``30min``."""
LONGEST = "2h"
"""The longest wait without it. Nothing that is made once takes longer, unless its process hangs."""


@contextmanager
def locked(path: Path, otherwise: str = ANOTHER_ROOT, what: str = "") -> Iterator[None]:
    """Lets one process at a time make ``path``, and makes its folder; the lock is the file ``path`` + ".lock".

    Args:
        path: The file or folder that is made.
        otherwise: The clause that ends an error's line: what else the user can do than make room for ``path``.
        what: What is made, for those who wait; empty for the path itself.

    Raises:
        InputError: The disk has no such folder, or another process takes longer than the longest wait.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    with disk_errors(path, otherwise):
        path.parent.mkdir(parents=True, exist_ok=True)
        wait_for(lock, what or str(path))
    try:
        yield
    finally:
        lock.release()


def wait_for(lock: FileLock, what: str) -> None:
    """Takes a lock; a line tells when this has to wait, and on what.

    Args:
        lock: The lock.
        what: What the process makes that holds it.

    Raises:
        InputError: That process takes longer than the longest wait.
    """
    longest = seconds_of(MAX_WAIT, os.environ.get(MAX_WAIT) or LONGEST)
    told_after = min(TELL_AFTER, longest)
    try:
        lock.acquire(timeout=told_after)
        return
    except Timeout:
        log.warning("waiting for another process, which makes %s; for %s at most", what, described(longest))
    try:
        lock.acquire(timeout=longest - told_after)
    except Timeout as error:
        raise InputError(
            f"another process has been making {what} for more than {described(longest)}; end it where it hangs, or "
            f"wait longer: set the environment variable {MAX_WAIT}, such as {MAX_WAIT}=5h (it holds {lock.lock_file})"
        ) from error
