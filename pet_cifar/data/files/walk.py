"""All files below a folder."""

import os
from pathlib import Path

from pet_cifar.errors import InputError

SYSTEM_FILES = ("Thumbs.db", "desktop.ini")
"""What Windows leaves among pictures."""


def walk(folder: Path) -> list[str]:
    """The files at any depth below a folder, as paths relative to it with forward slashes, in no certain order.

    Links to folders are followed, but none that leads back into a folder around it. A link to nothing counts as a
    file. Hidden files and folders and ``__MACOSX`` are passed over.

    Raises:
        InputError: A folder cannot be listed.
    """
    found: list[str] = []
    todo: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while todo:
        inside, around = todo.pop()
        here = folder / inside
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    path = f"{inside}{entry.name}"
                    if not entry.is_dir():
                        found.append(path)
                    elif (real := os.path.realpath(entry.path) if entry.is_symlink() else entry.path) not in around:
                        todo.append((f"{path}/", (*around, real)))
        except OSError as error:
            raise InputError(f"cannot list {here}: {error.strerror}; check that it is there and readable") from error
    return found


def is_hidden(name: str) -> bool:
    """Whether a path, with forward slashes, leads through something hidden, or what macOS adds to an archive.

    A way upward hides nothing; what reads a stranger's path refuses it.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in (".", ".."))
