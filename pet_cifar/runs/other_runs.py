"""Which run directory a place lies in, so that no run writes into another."""

from pathlib import Path


def other_run_around(path: Path, own: Path | None) -> Path | None:
    """The run directory that a file or folder lies in, unless it is the run that writes there.

    Args:
        path: The file or folder, which need not be there.
        own: The directory of the run that writes.
    """
    place, mine, here = path.resolve(), own and own.resolve(), Path.cwd()
    for folder in (place, *place.parents):
        if folder == mine or here.is_relative_to(folder):
            return None
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None
