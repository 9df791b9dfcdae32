"""The folder that an archive is unpacked into, which follows the archive's content."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from pet_cifar.data.files.archive import unpack_tar, unpack_zip
from pet_cifar.data.root import state_directory
from pet_cifar.errors import disk_errors
from pet_cifar.names import printable

log = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
"""The ends of the names of archives that are unpacked."""


def is_archive(path: Path) -> bool:
    """Whether this is an archive, by its name."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


def unpacked(archive: Path, members: Callable[[str], bool]) -> Path:
    """Unpacks an archive beside it; one that is replaced under its name is unpacked anew, and the old copy removed.

    Args:
        archive: The archive, which is never changed.
        members: Tells by its name whether a file in it is wanted; names have forward slashes and no ``./`` in front.

    Returns:
        The folder, in the directory for what is derived from the archive's folder.

    Raises:
        InputError: The archive is damaged, unsafe or without any wanted file, or the disk cannot take it.
    """
    with disk_errors(archive):
        status = archive.stat()
    # No program can set the time of the last change of anything, so that this differs for every other file.
    seen = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    state = state_directory(archive.parent)
    into = state / f"{archive.name}-{hashlib.sha256(seen.encode()).hexdigest()[:12]}"
    unpack = unpack_zip if archive.name.lower().endswith(".zip") else unpack_tar
    unpack(archive, into, lambda name: members(name.replace("\\", "/").removeprefix("./")))
    for old in state.glob(f"{_literally(archive.name)}-????????????"):
        if old != into and old.is_dir():
            log.info("%s has changed: what was unpacked of it before is removed", printable(archive.name))
            shutil.rmtree(old, ignore_errors=True)
    return into


def _literally(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
