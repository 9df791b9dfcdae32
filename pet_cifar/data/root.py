"""The data's folder, and the place for what is derived from the data."""

import hashlib
import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path


def data_root(root: str | Path | None) -> Path:
    """The folder that an option names; without one the environment variable ``PET_CIFAR_DATA``, or ``data``.

    A ``~`` at the beginning and variables such as ``$HOME`` are replaced, since a config is not read by a shell.
    """
    given = os.environ.get("PET_CIFAR_DATA") or "data" if root is None else root
    return Path(os.path.expandvars(given)).expanduser()


def state_directory(root: Path) -> Path:
    """Makes the directory for what is derived from the data: ``root/.pet_cifar``, or the user's cache if read-only."""
    beside = root / ".pet_cifar"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        cache = user_cache_path("pet_cifar") / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        cache.mkdir(parents=True, exist_ok=True)
        return cache
