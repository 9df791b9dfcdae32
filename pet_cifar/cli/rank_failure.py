"""Of several processes one fails and takes the others with it: each ends with the error of the one that has failed."""

import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import distributed

from pet_cifar.errors import InputError

FAILURE = "pet_cifar/failure"
"""The key under which a process tells the others why it fails."""
CONNECT = timedelta(seconds=3)
"""How long is waited for the place where the processes have found each other."""
PATIENCE = timedelta(seconds=1)
"""How long is waited for what another process tells. It tells before its connections end."""
_LOST = re.compile(r"gloo/|NCCL|[Cc]onnection (was )?(closed|reset|refused)|Broken pipe|Socket Timeout")
"""What is said where another process does not answer any more."""
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


class OtherProcessError(InputError):
    """Another process has failed, and this one can do nothing but end."""

    status = 1


def exchange(error: Exception, trainer: Trainer) -> OtherProcessError | None:
    """Tells the other processes of this one's error, or finds out whose error has cut it off.

    Args:
        error: What this process fails with.
        trainer: Runs the verb.

    Returns:
        What to end with where another process has failed; None where this one has.

    Raises:
        SystemExit: Another process has failed, and tells so on the same terminal, or has taken with it what it told.
    """
    if trainer.world_size == 1 or not distributed.is_available() or not distributed.is_initialized():
        return None
    if not is_cut_off(error):
        words = " ".join(str(error).split())
        own = words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"
        _tell(f"process {trainer.global_rank} of {trainer.world_size} has failed: {own}")
        return None
    told = _heard(trainer.world_size)
    if told is None or trainer.local_rank:  # One process of each machine is enough.
        raise SystemExit(OtherProcessError.status)
    return OtherProcessError(told)


def is_cut_off(error: Exception) -> bool:
    """Whether this says no more than that another process does not answer."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def _store() -> Any:
    """A connection of its own to where the processes have found each other, a ``TCPStore``."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=False, timeout=CONNECT, wait_for_workers=False
    )


def _tell(line: str) -> None:
    try:
        store = _store()
        # Of several that fail, the first one counts.
        store.compare_set(FAILURE, "", line)
    except (RuntimeError, KeyError, ValueError):  # The process that holds it has ended; nobody is left to be told.
        pass


def _heard(processes: int) -> str | None:
    """What the process has told that failed; None where nobody can be asked any more."""
    try:
        store = _store()
    except (RuntimeError, KeyError, ValueError):  # The first process holds it, and has ended with a word of its own.
        return None
    try:
        store.wait([FAILURE], PATIENCE)
        return str(store.get(FAILURE), errors="replace")
    except distributed.DistStoreError:
        return (
            f"one of the {processes} processes has ended without a word, as one does that is killed, for example for "
            "want of memory; the system's log may say why"
        )
    except RuntimeError:
        return None


def note_for_torchrun(line: str) -> None:
    """Writes the file from which ``torchrun`` takes the error that it shows last.

    Args:
        line: What has failed.
    """
    file = os.environ.get(_ERROR_FILE)
    if file:
        extra = {"py_callstack": line, "timestamp": str(int(time.time()))}
        with Path(file).open("w", encoding="utf-8") as stream:
            json.dump({"message": {"message": line, "extraInfo": extra}}, stream)
