"""A run that goes on in its own directory: which run, from which checkpoint, and what of its logs is kept."""

import csv
import logging
import math
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.callbacks.last_checkpoint import LastCheckpoint
from pet_cifar.callbacks.run_loggers import drawn_files, read_rows, write_rows
from pet_cifar.data.links import refuse_links
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.runs.checkpoint_file import LAST, PREVIOUS, glanced_at, keep_best
from pet_cifar.runs.directory import check_resumed, read_checkpoint, start_anew

log = logging.getLogger(__name__)
LOCK = ".training.lock"


@dataclass(frozen=True)
class Continuation:
    """What a run goes on from.

    Attributes:
        run: The run directory.
        checkpoint: The checkpoint in it.
        logs: How far the logs went when it was saved; see `LogPosition`.
        held: The lock of the run directory; None where this process only looks, or another one holds it for this one.
    """

    run: Path
    checkpoint: Path
    logs: Mapping[str, Any]
    held: FileLock | None = field(default=None, compare=False, repr=False)

    def let_go(self) -> None:
        """Lets other processes train in the run directory."""
        if self.held is not None:
            self.held.release()


def continuation_of(path: str, *, holds: bool = True) -> tuple[Continuation, dict[str, Any]]:
    """The run of ``fit --resume``, and its newest checkpoint that is whole.

    A run that is just ending writes one more checkpoint. So the directory is held before anything of it is read: what
    is read then is what the run goes on from.

    Args:
        path: A run directory, or the directory of a config's runs, of which the newest unfinished one is taken.
        holds: Whether the run directory is held from now on; of several processes the first one holds it.

    Returns:
        The run that goes on, and what its checkpoint holds.

    Raises:
        InputError: There is no such run, it cannot be written to, another process trains in it, no checkpoint of it is
            whole, or it is of an earlier version.
    """
    run = _find(path)
    refuse_links(run.rglob("*"), f"--resume {run}: ")
    if not has_checkpoint(run):
        raise InputError(f"--resume {run}: no {LAST} in {run / 'checkpoints'}; {_otherwise(run)}")
    if holds:
        _check_writable(run)
    held = lock(run) if holds else None
    try:
        checkpoint, content = _newest(run)
    except BaseException:
        if held is not None:
            held.release()
        raise
    return Continuation(run, checkpoint, content["logs"], held), content


def _check_writable(run: Path) -> None:
    """Refuses a run on a read-only disk, or one of somebody else; it is tried, since permissions do not tell all."""
    newest = next(path for name in (LAST, PREVIOUS) if (path := run / "checkpoints" / name).is_file())
    with disk_errors(run, f", or go on in a new directory: {in_a_new_directory(newest)}"):
        tempfile.TemporaryFile(dir=run).close()


def has_checkpoint(run: Path) -> bool:
    """Whether a run directory has a checkpoint to go on from."""
    return any((run / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS))


def in_a_new_directory(checkpoint: Path) -> str:
    """The command that goes on from a checkpoint in a new run directory."""
    return f"pet-cifar fit --ckpt_path {shlex.quote(str(checkpoint))}"


def _newest(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that is whole, and what it holds."""
    damaged: list[str] = []
    for name in (LAST, PREVIOUS):
        checkpoint = run / "checkpoints" / name
        if not checkpoint.is_file():
            continue
        try:
            content = read_checkpoint(checkpoint)
        except InputError:
            damaged.append(str(checkpoint))
            continue
        if not _is_log_position(content.get("logs")):
            raise InputError(
                f"--resume {run}: {checkpoint} was written by an earlier version, which did not note how far its logs "
                f"went; go on in a new directory: {in_a_new_directory(checkpoint)}"
            )
        if damaged:
            _warn(f"{damaged[0]} is damaged: going on from {checkpoint}, the one before it")
        return checkpoint, content
    raise InputError(f"--resume {run}: {' and '.join(damaged)} cannot be read; {_otherwise(run)}")


def _otherwise(run: Path) -> str:
    """What to do with a run that has nothing to go on from: its best checkpoint may be whole, or its config there."""
    best = run / "checkpoints" / "best.ckpt"
    if best.is_file():
        try:
            read_checkpoint(best)
            return f"go on from its best checkpoint in a new directory: {in_a_new_directory(best)}"
        except InputError:  # It is damaged as well, and no way out.
            pass
    return start_anew(run)


def _is_log_position(logs: object) -> bool:
    if not isinstance(logs, dict) or not _is_count(logs.get("rows", 0)):
        return False
    sizes = logs.get("bytes", {})
    return isinstance(sizes, dict) and all(isinstance(key, str) and _is_count(size) for key, size in sizes.items())


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


@rank_zero_only
def _warn(line: str) -> None:
    log.warning(line)


def _find(text: str) -> Path:
    path = check_resumed(text)
    if path.name == "checkpoints":
        path = path.parent
    versions = [entry for entry in path.iterdir() if re.fullmatch(r"version_\d+", entry.name)]
    if not versions:
        return path
    runs = sorted(versions, key=lambda entry: int(entry.name.removeprefix("version_")), reverse=True)
    kept = [run for run in runs if has_checkpoint(run)]
    for run in kept:
        if not is_finished(run):
            return run
    if kept:
        raise InputError(
            f"--resume {text}: all of its runs have come to their end; to train one further, name it and raise what "
            f"has ended it, which may be --trainer.max_time or --budget: --resume {kept[0]} --trainer.max_epochs N"
        )
    raise InputError(f"--resume {text}: none of its runs has a checkpoint to go on from; {_otherwise(runs[0])}")


def is_finished(run: Path) -> bool:
    """Whether the last checkpoint of a run was saved at its end; a damaged one was not."""
    return ends_a_run(glanced_at(run / "checkpoints" / LAST))


def ends_a_run(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was saved when its run had come to the end that its options asked for; see `LastCheckpoint`.

    Epochs, steps, a budget, ``--trainer.max_time`` and early stopping are such ends, and a signal or an error is none.
    ``--resume`` passes over a run that has ended, unless it is named, and ``repeat`` takes it for trained. The record
    of the run, which ``compare`` reads, says the same as its ``state``.
    """
    states = checkpoint.get("callbacks")
    return isinstance(states, Mapping) and any(
        isinstance(state, Mapping) and bool(state.get("finished"))
        for name, state in states.items()
        if str(name).startswith(LastCheckpoint.__name__)
    )


def rewind(found: Continuation) -> None:
    """Drops what the logs of a run hold beyond its checkpoint, because the run makes it again.

    A ``best.ckpt`` that was saved later gives way to the one that the checkpoint knows of: with other options the run
    may come to another net.

    Raises:
        InputError: A log is damaged, is shorter than it was at the checkpoint, or cannot be written.
    """
    run, otherwise = found.run, _put_back_or_leave(found.checkpoint)
    with disk_errors(run, ""):
        for partial in [*run.glob("*.part"), *run.glob("checkpoints/*.part")]:
            partial.unlink()
        if "rows" in found.logs:
            _keep_rows(run / "metrics.csv", int(found.logs["rows"]), otherwise)
        if "bytes" in found.logs:
            _keep_bytes(run, found.logs["bytes"], otherwise)
        keep_best(found.checkpoint)


def _put_back_or_leave(checkpoint: Path) -> str:
    return f"put the file back, or go on in a new directory: {in_a_new_directory(checkpoint)}"


def _keep_rows(path: Path, count: int, otherwise: str) -> None:
    try:
        rows = read_rows(path)
        reason = _damage(path, count)
    except (UnicodeDecodeError, csv.Error) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(f"--resume: {path} is damaged ({reason}); {otherwise}") from error
    if len(rows) < count:
        raise InputError(
            f"--resume: {path} has {len(rows)} rows, and the checkpoint was saved after {count}; {otherwise}"
        )
    if reason is not None:
        raise InputError(f"--resume: {path} is damaged ({reason}); {otherwise}")
    if len(rows) > count:
        write_rows(path, list(rows[0]), rows[:count])


def _damage(path: Path, count: int) -> str | None:
    """What is wrong with the rows that are kept; of those after them a kill may have left a part."""
    if not count or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    for number, row in enumerate(rows[:count], 1):
        if len(row) != len(header):
            return f"row {number} has {len(row)} cells, and the header {len(header)}"
        named = dict(zip(header, row, strict=True))
        for name in ("epoch", "step"):
            text = named.get(name, "")
            # A row that a callback of the user's own has written into the logger has no epoch.
            if not _is_number(text) and (text or name == "step"):
                return f"{name} of row {number} is {text[:40]!r}, and no number"
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _keep_bytes(run: Path, sizes: Mapping[str, int], otherwise: str) -> None:
    for name, size in sizes.items():
        path = run / name
        if not path.is_file() or path.stat().st_size < size:
            raise InputError(f"--resume: {path} is shorter than it was when the checkpoint was saved; {otherwise}")
    for path in drawn_files(run):
        kept = sizes.get(str(path.relative_to(run)))
        if kept is None:
            path.unlink()
            for folder in list(path.relative_to(run).parents)[:-1]:  # torch warns of a folder of embeddings.
                if not any((run / folder).iterdir()):
                    (run / folder).rmdir()
        elif path.stat().st_size > kept:
            with path.open("r+b") as file:
                file.truncate(kept)


def lock(run: Path) -> FileLock:
    """Keeps other processes from training in a run directory until this one ends or releases it.

    Raises:
        InputError: Another process trains there.
    """
    held = FileLock(run / LOCK, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise InputError(f"{run} is being trained by another process; wait for it, or end it first") from error
    except (NotImplementedError, OSError):  # The file system knows no locks.
        pass
    return held
