"""The runs of a SLURM job: one that was requeued starts its script anew, and each command goes on with its own run."""

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks.experiment import read_record
from pet_cifar.cli.defaults import LOGS
from pet_cifar.cli.plain_parser import asks_for_help, split_words
from pet_cifar.data.files.regular import read_json
from pet_cifar.data.files.replacing import replacing
from pet_cifar.errors import disk_errors
from pet_cifar.runs.continuation import has_checkpoint, is_finished

LOOKS = ("--print_config", "--print_model")
"""The options with which ``fit`` shows something and trains nothing."""
JOB = "slurm_job_id"
"""The file in which a run keeps its SLURM job and its command. An earlier version wrote the job's number alone."""


@dataclass(frozen=True)
class _Note:
    """What the file says.

    Attributes:
        command: The command as a line of a shell.
        start: How often the job had been requeued when the run was trained last.
    """

    command: str
    start: int


class JobNote(Callback):
    """Writes into a run directory which command of which SLURM job trains there.

    It does so when training begins. By then all processes of the run have looked for it, and found the same.

    Args:
        command: The verb and its options, as they were typed.
        directory: Gives the run directory; None in processes after the first, which write nothing.
    """

    def __init__(self, command: Sequence[str], directory: Callable[[], Path | None]) -> None:
        self.command = list(command)
        self.directory = directory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file.

        Raises:
            InputError: The disk is full, or the file cannot be written.
        """
        job, directory = os.environ.get("SLURM_JOB_ID"), self.directory()
        # With --resume a command names its run itself, and the note of the one that has begun it stays.
        if not job or directory is None or split_words(self.command, "--resume")[0]:
            return
        content = {"job": job, "command": shlex.join(["pet-cifar", *self.command]), "start": _start()}
        with disk_errors(directory / JOB, ""), replacing(directory / JOB) as file:
            file.write(json.dumps(content).encode())


def may_go_on(command: Sequence[str]) -> bool:
    """Whether a command trains in a SLURM job that was requeued, and names no run itself.

    Args:
        command: The verb and its options, as they were typed.
    """
    verb, *words = command
    looks = asks_for_help(words) or any(word.startswith(LOOKS) for word in words)
    return verb == "fit" and not looks and _start() > 0 and not split_words(words, "--resume")[0]


def run_of_command(command: Sequence[str], root: str | None) -> Path | None:
    """The run that this command has begun before its SLURM job was requeued.

    Runs that were trained since the job has started again are those of commands before this one. So a script with the
    same command twice goes on with either run.

    Args:
        command: ``fit`` and its options, as they were typed.
        root: The folder of ``lightning_logs``; None is the working directory.

    Returns:
        The run directory, and of several the oldest one that has not come to its end; None where the job was not
        requeued, or the command has left no checkpoint to go on from.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or _start() == 0:
        return None
    logs = Path(root or "").expanduser() / LOGS
    typed, runs = shlex.join(["pet-cifar", *command]), []
    for file in logs.glob(f"*/version_*/{JOB}"):
        note = _read(file, job)
        if note is not None and note.command == typed and note.start < _start() and has_checkpoint(file.parent):
            runs.append(file.parent)
    runs.sort(key=lambda run: (is_finished(run), (run / JOB).stat().st_mtime))
    return runs[0] if runs else None


def _start() -> int:
    """How often this job was requeued."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return int(count) if count.isdecimal() else 0


def _read(file: Path, job: str) -> _Note | None:
    """What the file says; None where it is of another job, or damaged."""
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return None
    if isinstance(found, dict):
        of, command, start = found.get("job"), found.get("command"), found.get("start")
    else:  # The number that an earlier version wrote; the record says with which command.
        of, command, start = str(found), (read_record(file.parent) or {}).get("command"), 0
    return _Note(command, start) if of == job and isinstance(command, str) and isinstance(start, int) else None
