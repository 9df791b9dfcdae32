"""Links in folders that may come from anyone, through which writing there would write elsewhere."""

from collections.abc import Iterable
from pathlib import Path

from pet_cifar.errors import InputError


def refuse_links(paths: Iterable[Path], where: str = "") -> None:
    """Refuses links among the paths that are written to.

    A folder that the user names may be a link itself: it is no such path, and what lies in it is.

    Args:
        paths: The files and folders.
        where: What begins the line, such as ``--resume RUN: ``.

    Raises:
        InputError: One of them is a link; it may also lead nowhere yet.
    """
    for path in paths:
        if path.is_symlink():
            raise InputError(
                f"{where}{path} is a link, through which a run would write elsewhere; put the file or the folder "
                "itself there, or remove the link"
            )
