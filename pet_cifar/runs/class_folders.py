"""Puts pictures into folders for their classes, and never over another file."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable
from pet_cifar.runs.sources import Source

OUTLIERS = "none_of_these"
"""The folder of pictures of none of the classes."""


def folder_names(class_names: Iterable[str]) -> dict[str, str]:
    """The name of a folder of its own for each class, which leads nowhere else, whatever the class is called."""
    names: dict[str, str] = {}
    taken = {OUTLIERS}
    for one in class_names:
        # Windows takes none of these characters, and no point at the end.
        plain = re.sub(r'[/\\:*?"<>|]', "_", printable(one))[:100].strip(". ") or "_"
        free = plain
        number = 2
        while free.casefold() in taken:
            free, number = f"{plain} ({number})", number + 1
        taken.add(free.casefold())
        names[one] = free
    return names


def put_into(source: Source, folder: Path, *, move: bool) -> Path:
    """Copies or moves a picture into a folder, and never over another file.

    Args:
        source: The picture; one in an archive can only be copied.
        folder: The folder, which is made.
        move: Moves the file. Of a link the file itself is copied, and the link is removed.

    Returns:
        Where it is now: under its own name, or with a number behind it where there is another of this name.

    Raises:
        InputError: It cannot be written there, is gone, or is to be moved out of an archive.
    """
    if move and not source.member and source.path.absolute().parent == folder.absolute():
        return source.path  # It lies there already.
    if move and source.member:
        raise InputError(f"--move: {printable(source.name)} lies in an archive; give --copy")
    with disk_errors(folder, "; give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    target = _reserved(folder, printable(Path(source.member or source.path).name))
    try:
        with disk_errors(target, "; give another folder"):
            if source.member:
                target.write_bytes(source.read())
            elif move:
                _move(source.path, target)
            else:
                shutil.copy2(source.path, target)
    except BaseException:
        # The name was free, so that what is there is ours, and the picture is still where it was.
        if not move or source.path.exists():
            target.unlink(missing_ok=True)
        raise
    return target


def _move(path: Path, target: Path) -> None:
    if not path.is_symlink():
        try:
            path.replace(target)
            return
        except OSError:  # The folder is on another disk.
            pass
    shutil.copy2(path, target)
    os.unlink(path)  # noqa: PTH108 - of a link, and not of what it leads to


def _reserved(folder: Path, name: str) -> Path:
    """Makes an empty file under a name that is free; two programs never get the same."""
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(1, 1_000_000):
        target = folder / (name if number == 1 else f"{stem} ({number}){suffix}")
        with disk_errors(target, "; give another folder"):
            try:
                target.open("xb").close()
            except FileExistsError:
                continue
        return target
    raise InputError(f"{folder} holds a million files called {name}; give another folder")
