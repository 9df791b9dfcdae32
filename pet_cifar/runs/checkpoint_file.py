"""Checkpoints as files: written whole or not at all, with a hash that tells a torn one."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning import Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from pet_cifar.data.files.plain_tensors import read_tensors
from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.files.replacing import replacing
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.runs.other_runs import other_run_around

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
BEST, BEST_BEFORE = "best.ckpt", "best_before.ckpt"
MARK = b"pet-cifar sha256 "
LENGTH = len(MARK) + 64
"""The hash stands at the end of the file, where the format (zip) allows a comment that torch does not read."""
CHUNK = 1 << 22
SIGN, END = b"PK\5\6", 22
"""What the last part of a zip file begins with, and its length without the comment."""


class HashedCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside their place, flushed to the disk and then moved there.

    The one that a new ``last.ckpt`` replaces is kept as ``previous.ckpt``. The best one that ``last.ckpt`` knows of is
    kept as ``best_before.ckpt`` from a new ``best.ckpt`` until the next ``last.ckpt``, because a run that goes on from
    ``last.ckpt`` may not come to the new one again.

    Args:
        spares: Gives the directory of the run that must not write into others, since a file has named its callbacks;
            None where the user has.
    """

    def __init__(self, spares: Callable[[], str | None] | None = None) -> None:
        super().__init__()
        self._spares = spares

    def _check(self, path: Path) -> None:
        """Refuses to replace or to delete the checkpoint of another run.

        Raises:
            InputError: The file lies in the directory of another run.
        """
        if self._spares is None:
            return
        own = self._spares()
        if (other := other_run_around(path, Path(own) if own else None)) is not None:
            raise InputError(
                f"{path} lies in the run directory {other}, and no checkpoint that a run goes on from decides that it "
                "writes into another run; give callbacks without that dirpath: --trainer.callbacks []"
            )

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; what stood there before stays where that fails.

        Raises:
            InputError: The disk is full, or the file cannot be written.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        self._check(path)
        best_before = path.with_name(BEST_BEFORE)
        kept_as = path.with_name(PREVIOUS) if path.name == LAST else None
        if path.name == BEST and path.with_name(LAST).is_file() and not best_before.exists():
            kept_as = best_before
        with disk_errors(path, "; the checkpoint before it is whole"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, kept_as) as file:
                _write(checkpoint, file)
            if path.name == LAST:
                best_before.unlink(missing_ok=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a file; Lightning's own would also delete a directory and all that is in it.

        Raises:
            InputError: It is a directory.
        """
        if "://" in str(path):
            super().remove_checkpoint(path)
        elif Path(path).is_dir():
            raise InputError(f"{path} is a directory, where a checkpoint belongs; move it away")
        else:
            self._check(Path(path))
            Path(path).unlink(missing_ok=True)


def use_hashed_checkpoints(trainer: Trainer, *, spares_other_runs: bool = False) -> None:
    """Lets a trainer write such files, unless its strategy or the user has a way of its own.

    Args:
        trainer: Writes them.
        spares_other_runs: Whether it must not write into the directories of other runs.
    """
    strategy = trainer.strategy
    # Those that divide a net write whole checkpoints by it, and divided ones in a way of their own.
    takes_one = DDPStrategy | SingleDeviceStrategy | FSDPStrategy | ModelParallelStrategy
    if isinstance(strategy, takes_one) and type(strategy.checkpoint_io) is TorchCheckpointIO:
        # Only the first process writes, and asks for its own directory; the others would wait for an answer.
        strategy.checkpoint_io = HashedCheckpoints((lambda: _run_of(trainer)) if spares_other_runs else None)


def _run_of(trainer: Trainer) -> str | None:
    """The directory that a trainer's first logger writes to, which one process may ask for alone."""
    logger = trainer.logger
    return getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)


class _HashedFile:
    """Hashes what is written to a file, and keeps the error of a full disk, which torch would turn into another."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(content)
                self.hash.update(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """Does nothing: the file is flushed once, when it is whole."""


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    hashed: Any = _HashedFile(file)
    torch.save(checkpoint, hashed)
    if hashed.error is not None:
        raise hashed.error
    comment = MARK + hashed.hash.hexdigest().encode()
    # The last two bytes of a zip file without a comment are the comment's length.
    file.seek(-2, os.SEEK_END)
    file.write(len(comment).to_bytes(2, "little") + comment)


def check_hash(path: Path) -> None:
    """Refuses a checkpoint whose content is not what was written; one without a hash is of an earlier version.

    Raises:
        InputError: The content does not fit the hash.
    """
    check_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LENGTH - END))
        _, end, rest = file.read().rpartition(SIGN)
        if not end or rest[END - 6 : END - 4] == bytes(2):  # The file was torn before its end, or has no comment.
            return
        file.seek(0)
        found = hashlib.sha256()
        left = size - LENGTH - 2
        while left > 0 and (content := file.read(min(CHUNK, left))):
            found.update(content)
            left -= len(content)
    found.update(bytes(2))
    if rest[END - 4 :] != MARK + found.hexdigest().encode():
        raise InputError(f"{path} is damaged: its content does not fit its hash; give another checkpoint")


def glanced_at(path: Path) -> Mapping[str, Any]:
    """What a checkpoint holds, of which the weights are mapped and not read; nothing where it is damaged."""
    try:
        content = read_tensors(path, mapped=True)
    # torch raises different errors for different kinds of damage; what is wrong is told where the file is used.
    except Exception:
        return {}
    return content if isinstance(content, dict) else {}


def keep_best(checkpoint: Path) -> None:
    """Puts the best net back that a checkpoint knows of, where a later one stands in its place.

    A run that goes on from the checkpoint may come to another net than the later one, as with other options.

    Args:
        checkpoint: What the run goes on from.

    Raises:
        OSError: A file cannot be moved.
    """
    best, before = checkpoint.with_name(BEST), checkpoint.with_name(BEST_BEFORE)
    if not before.is_file():
        return
    step = glanced_at(checkpoint).get("global_step")
    if not _is_up_to(best, step) and _is_up_to(before, step):
        before.replace(best)
    else:
        before.unlink()


def _is_up_to(path: Path, step: object) -> bool:
    """Whether a checkpoint is whole and was saved at a step or before; one that is not there was not."""
    found = glanced_at(path).get("global_step") if path.is_file() else None
    return isinstance(found, int) and isinstance(step, int) and found <= step
