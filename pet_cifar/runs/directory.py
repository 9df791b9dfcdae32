"""A run directory: where it is, and what its checkpoints hold."""

import pickle
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from pet_cifar.errors import InputError, check_local, did_you_mean

PARTS = ("state_dict", "hyper_parameters", "callbacks")
"""What of a checkpoint is a mapping."""


def find_run(path: str | Path) -> Path:
    """The run directory that ``path`` is, or the newest one among the runs of a config.

    Raises:
        InputError: There is none, or none with a checkpoint.
    """
    check_local("--run", path)
    text, path = str(path), Path(path)
    if not text:
        raise InputError("--run needs a directory, such as lightning_logs/digits_residual")
    if path.is_file():
        raise InputError(f"--run {path}: this is a file and no run directory; {_instead_of_a_file(path)}")
    if not path.is_dir():
        folders = [folder for folder in dict.fromkeys((path.parent, Path("lightning_logs"))) if folder.is_dir()]
        known = [str(one) for folder in folders for one in _runs_below(folder)]
        where = f"; there are {', '.join(known)}" if known else "; runs are under lightning_logs/<config name>/"
        raise InputError(f"--run {path}: there is no such directory{where}{did_you_mean(text, known)}")
    if path.name == "checkpoints" and any(path.glob("*.ckpt")):
        return path.parent
    versions = [entry for entry in path.iterdir() if re.fullmatch(r"version_\d+", entry.name)]
    runs = sorted(versions, key=lambda entry: int(entry.name.removeprefix("version_")), reverse=True) or [path]
    for run in runs:
        if _has_checkpoint(run):
            return run
    if below := _runs_below(path):
        raise InputError(f"--run {path}: this holds runs and is none itself; give one of {', '.join(map(str, below))}")
    raise InputError(f"--run {path}: no checkpoint in {runs[0] / 'checkpoints'}; {start_anew(runs[0])}")


def _has_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints").glob("*.ckpt"))


def _runs_below(path: Path) -> list[Path]:
    """The directories in ``path`` whose own ``version_N`` have a checkpoint."""
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and any(_has_checkpoint(run) for run in entry.glob("version_*"))
    )


def start_anew(run: Path) -> str:
    """What to do with a run directory that holds no checkpoint, or none that is whole."""
    if (run / "config.yaml").is_file():
        return f"start the run anew: pet-cifar fit --config {shlex.quote(str(run / 'config.yaml'))}"
    return "give a run directory, such as lightning_logs/digits_residual, or begin a run: pet-cifar fit --config NAME"


def best_checkpoint(run: Path) -> Path:
    """The run's best checkpoint, or its last where no best one was written.

    Raises:
        InputError: The run has neither.
    """
    for name in ("best.ckpt", "last.ckpt"):
        if (run / "checkpoints" / name).is_file():
            return run / "checkpoints" / name
    raise InputError(f"{run / 'checkpoints'} holds neither best.ckpt nor last.ckpt; give the checkpoint's file itself")


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """The run directory in which a checkpoint lies, if it lies in one."""
    checkpoint = checkpoint if checkpoint.parent.name else checkpoint.absolute()
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def find_checkpoint(run: str | Path) -> Path:
    """The checkpoint that ``run`` is, or the best one of the run that it names.

    Raises:
        InputError: There is none.
    """
    path = Path(run).expanduser()
    return path if path.is_file() else best_checkpoint(find_run(path if str(run) else ""))


def check_run_folder(path: Path) -> None:
    """Refuses what is no directory in the place of a run.

    Raises:
        InputError: There is no such directory.
    """
    if not path.is_dir():
        kind = "is a file" if path.is_file() else "does not exist"
        folder = path.parent if path.parent.is_dir() else Path("lightning_logs")
        known = [str(one) for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
        near = did_you_mean(str(path), known)
        raise InputError(f"{path} {kind}; give run directories, such as lightning_logs/NAME{near}")


def check_file(path: Path) -> None:
    """Refuses what is no file of this machine in the place of a checkpoint.

    Raises:
        InputError: There is no such file.
    """
    check_local("--ckpt_path", path)
    if not path.is_file():
        raise InputError(f"--ckpt_path {path}: there is no such file")


def check_resumed(text: str) -> Path:
    """The directory that ``--resume`` names: a run, or the runs of a config.

    Raises:
        InputError: There is no such directory.
    """
    check_local("--resume", text)
    path = Path(text)
    if path.is_file() or (path.suffix == ".ckpt" and not path.is_dir()):
        raise InputError(f"--resume {text}: this is no run directory; {_instead_of_a_file(path)}")
    if not text or not path.is_dir():
        raise InputError(
            f"--resume {text}: there is no such directory; give a run, such as lightning_logs/digits_residual"
        )
    return path


def _instead_of_a_file(path: Path) -> str:
    """What to give where a run directory was asked for, and a file was given."""
    if path.suffix in (".yaml", ".yml"):
        return f"give one, such as lightning_logs/{path.stem}; a config is given as --config {shlex.quote(str(path))}"
    if path.suffix == ".ckpt" or is_zipfile(path):  # torch writes such files.
        return f"give one, or, for the checkpoint itself and a new directory, give --ckpt_path {shlex.quote(str(path))}"
    return "give one, such as lightning_logs/digits_residual"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors, numbers and strings; code in it is refused.

    Raises:
        InputError: The file is missing, damaged or holds something else.
    """
    check_file(path)
    # These imports take seconds, and a directory is found without them.
    import torch

    from pet_cifar.data.files.plain_tensors import read_tensors
    from pet_cifar.runs.checkpoint_file import check_hash

    check_hash(path)
    try:
        checkpoint = read_tensors(path)
    # torch raises different errors for different kinds of damage.
    except Exception as error:
        # torch's own advice is to run the code in the file.
        code = isinstance(error, pickle.UnpicklingError)
        words = f"{type(error).__name__} {error}" if isinstance(error, LookupError) else str(error)
        reason = "" if code else f" ({(words or type(error).__name__).splitlines()[0]})"
        raise InputError(
            f"{path} cannot be read as a checkpoint{reason}; it is none, is damaged, or holds more than tensors, "
            "numbers and strings"
        ) from error
    if isinstance(checkpoint, dict) and _is_checkpoint(checkpoint):
        for name in PARTS:
            if name in checkpoint and not isinstance(checkpoint[name], Mapping):
                kind = type(checkpoint[name]).__name__
                raise InputError(
                    f"{path} is no checkpoint of a run: its {name} is of the type {kind}, and not a mapping; give one "
                    "from a run's checkpoints directory"
                )
        return checkpoint
    inner = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    if isinstance(inner, dict) and inner and all(isinstance(value, torch.Tensor) for value in inner.values()):
        raise InputError(
            f"--ckpt_path {path} is no checkpoint of a run, but a bare state dict of {len(inner)} tensors, such as "
            f"{next(iter(inner))}; a net that takes weights (VGG16Classifier, TimmClassifier) starts from it with fit "
            f"and --model.weights {shlex.quote(str(path))}"
        )
    raise InputError(f"{path} is no checkpoint of a run; give one from a run's checkpoints directory")


def _is_checkpoint(content: Mapping[str, Any]) -> bool:
    """Whether Lightning has written the content; other training scripts may use the word ``state_dict`` as well."""
    return "state_dict" in content and ("pytorch-lightning_version" in content or "hyper_parameters" in content)
