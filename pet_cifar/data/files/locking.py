"""One process at a time makes a file that others wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pet_cifar.errors import ANOTHER_ROOT, disk_errors


@contextmanager
def locked(path: Path, otherwise: str = ANOTHER_ROOT) -> Iterator[None]:
    """Lets one process at a time make `path`; makes its folder. The lock is `path` + ".lock".

    Args:
        path: what is made.
        otherwise: what else can be done than making room for it.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    with disk_errors(path, otherwise):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
