"""What a run directory is: its config, its checkpoints, its metrics."""

import re
from pathlib import Path
from typing import Any

import torch

from pet_cifar.errors import InputError


def find_run(path: str | Path) -> Path:
    """The run directory that ``path`` is, or the newest one in the directory of a config's runs.

    Raises:
        InputError: there is none, or none with a checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"--run {path}: there is no such directory; runs are under lightning_logs/<config name>/")
    versions = [entry for entry in path.iterdir() if re.fullmatch(r"version_\d+", entry.name)]
    runs = sorted(versions, key=lambda entry: int(entry.name.removeprefix("version_")), reverse=True) or [path]
    for run in runs:
        if (run / "checkpoints").is_dir() and any((run / "checkpoints").glob("*.ckpt")):
            return run
    raise InputError(f"--run {path}: no checkpoint in {runs[0] / 'checkpoints'}; was the run stopped before its first?")


def best_checkpoint(run: Path) -> Path:
    """The run's best checkpoint, or its last where no best one was written."""
    for name in ("best.ckpt", "last.ckpt"):
        if (run / "checkpoints" / name).is_file():
            return run / "checkpoints" / name
    raise InputError(f"{run / 'checkpoints'} holds neither best.ckpt nor last.ckpt; name one with --ckpt_path")


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """The run directory that a checkpoint lies in, if it lies in one."""
    checkpoint = checkpoint if checkpoint.parent.name else checkpoint.absolute()
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors, numbers and strings; code in it is refused.

    Raises:
        InputError: it is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise InputError(f"--ckpt_path {path}: there is no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # what torch raises on damaged files differs by the kind of damage
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as a checkpoint ({reason}); it is damaged or holds more than "
            "tensors, numbers and strings"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is no checkpoint of a run; give one from a run's checkpoints directory")
    return checkpoint
