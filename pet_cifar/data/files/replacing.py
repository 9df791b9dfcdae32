"""Files that are written beside their place and then moved there, so that each is whole or as it was."""

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, kept_as: Path | None = None, *, waits_for_disk: bool = True) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the place of ``path`` once it is whole.

    Args:
        path: The file; it stays as it was where writing fails.
        kept_as: Where the file goes that stood there before; None drops it.
        waits_for_disk: Whether the file must be on the disk before, so that it outlives a machine that stops.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # Whoever has made the folder may have put a link there.
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            yield file
            if waits_for_disk:
                file.flush()
                os.fsync(file.fileno())
        if kept_as is not None and path.exists():
            path.replace(kept_as)
        partial.replace(path)
        if waits_for_disk:
            _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_text(path: Path, errors: str = "strict") -> Iterator[codecs.StreamWriter]:
    """Gives a file to write text to, which takes the place of ``path`` once it is whole.

    Args:
        path: The file; it stays as it was where writing fails.
        errors: What becomes of letters that UTF-8 does not have; see `codecs`.
    """
    with replacing(path, waits_for_disk=False) as file:
        # A TextIOWrapper would try to write once more when it is thrown away, long after the disk was full.
        yield codecs.getwriter("utf-8")(file, errors)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows opens no folder.
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
