"""Lets one process at a time make a file that others wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pet_cifar.errors import ANOTHER_ROOT, disk_errors


@contextmanager
def locked(path: Path, otherwise: str = ANOTHER_ROOT) -> Iterator[None]:
    """Lets one process at a time make ``path``, and makes its folder; the lock is the file ``path`` + ".lock".

    Args:
        path: The file or folder that is made.
        otherwise: The clause that ends an error's line: what else the user can do than make room for ``path``.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    with disk_errors(path, otherwise):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
