"""The data's folder, and the place for what is derived from the data."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from pet_cifar.data.links import refuse_links
from pet_cifar.errors import check_local, disk_errors


def data_root(root: str | Path | None) -> Path:
    """The folder that an option names; without one the environment variable ``PET_CIFAR_DATA``, or ``data``.

    A ``~`` at the beginning and variables such as ``$HOME`` are replaced, since a config is not read by a shell.
    """
    given = os.environ.get("PET_CIFAR_DATA") or "data" if root is None else root
    return expanded(given, "root")


def expanded(path: str | Path, name: str) -> Path:
    """A path whose ``~`` and variables are replaced, as a shell would.

    Args:
        path: The path.
        name: The argument that it was given for.

    Raises:
        InputError: It is an address.
    """
    check_local(name, path)
    return Path(os.path.expandvars(path)).expanduser()


def state_directory(root: Path) -> Path:
    """Makes the directory for what is derived from the data: ``root/.pet_cifar``, or the user's cache if read-only.

    Raises:
        InputError: It is a link or holds one, or no such directory can be made.
    """
    beside, cache = state_directories(root)
    refuse_links([beside])
    with suppress(OSError):
        beside.mkdir(exist_ok=True)
    if is_writable(beside):
        # The folders of unpacked archives are moved here when they are whole, and nothing is written into them.
        with disk_errors(beside):
            refuse_links([*beside.iterdir(), *beside.glob("features/*")])
        return beside
    with disk_errors(cache, f", or set the environment variable XDG_CACHE_HOME to another folder than {cache.parent}"):
        cache.mkdir(parents=True, exist_ok=True)
    return cache


def state_directories(root: Path) -> tuple[Path, Path]:
    """Where what is derived from the data may be: beside it, or in the user's cache; neither is made."""
    own = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return root / ".pet_cifar", user_cache_path("pet_cifar") / own


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder that is there; this tries it, since permissions do not tell all."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
