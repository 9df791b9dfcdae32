"""Of several processes one ends early and takes the others with it: all end with its error, or with its signal."""

import json
import os
import re
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import distributed

from pet_cifar.callbacks.stop_request import Stopped
from pet_cifar.errors import InputError

FAILURE = "pet_cifar/failure"
"""The key under which a process tells the others why it fails."""
SIGNAL = "pet_cifar/signal "
"""What is told begins with this where a signal has stopped a process; the signal's number comes after it."""
HEARD = "pet_cifar/heard"
"""The key under which the processes that have heard it are counted."""
CONNECT = timedelta(seconds=3)
"""How long is waited for the place where the processes have found each other."""
PATIENCE = timedelta(seconds=1)
"""How long is waited for what another process tells. It tells before its connections end."""
FAREWELL = 3.0
"""How many seconds the process that holds the place where all meet waits for the others to have heard it."""
_LOST = re.compile(r"gloo/|NCCL|[Cc]onnection (was )?(closed|reset|refused)|Broken pipe|Socket Timeout")
"""What is said where another process does not answer any more."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The environment variable that names the file into which a process writes what it fails with, as for ``torchrun``."""


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
        Stopped: Another process was stopped by a signal, as this one is then.
        SystemExit: Another process has failed, and one of those that are left on this machine tells so.
    """
    if not is_one_of_several(trainer):
        return None
    if not is_cut_off(error):
        words = " ".join(str(error).split())
        own = words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"
        _tell(f"process {trainer.global_rank} of {trainer.world_size} has failed: {own}", trainer)
        return None
    told = _heard(trainer.world_size)
    if told is not None and told.startswith(SIGNAL):
        raise Stopped(int(told.removeprefix(SIGNAL)))
    if told is None:
        told = without_a_word(0)
        speaks = trainer.local_rank == (1 if trainer.node_rank == 0 else 0)
    else:
        speaks = trainer.local_rank == 0
    if not speaks:  # One process of each machine is enough.
        raise SystemExit(OtherProcessError.status)
    return OtherProcessError(told)


def without_a_word(rank: int) -> str:
    """The line about a process that is gone.

    Args:
        rank: Its number.
    """
    return (
        f"process {rank} has ended and cannot be asked why: it has said so by itself, or was killed, as happens for "
        "want of memory; the system's log may say why"
    )


def tell_signal(number: int, trainer: Trainer) -> None:
    """Tells the other processes that a signal has stopped this one, so that all end with it.

    Args:
        number: The number of the signal.
        trainer: Runs the verb.
    """
    if is_one_of_several(trainer):
        _tell(f"{SIGNAL}{number}", trainer)


def is_one_of_several(trainer: Trainer) -> bool:
    """Whether this process has met others with which it runs a verb."""
    return trainer.world_size > 1 and distributed.is_available() and distributed.is_initialized()


def is_cut_off(error: Exception) -> bool:
    """Whether this says no more than that another process does not answer."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def _store() -> Any:
    """A connection of its own to where the processes have found each other, a ``TCPStore``.

    Raises:
        RuntimeError: The process that holds it is gone.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:  # torch itself would print where in its code it was.
        socket.create_connection((host, port), CONNECT.total_seconds()).close()
    except OSError as error:
        raise RuntimeError(f"nobody answers at {host}:{port}") from error
    return distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=False, timeout=CONNECT, wait_for_workers=False
    )


def _tell(line: str, trainer: Trainer) -> None:
    try:
        store = _store()
        # Of several that fail, the first one counts.
        store.compare_set(FAILURE, "", line)
        if trainer.global_rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            _let_hear(store, trainer.world_size - 1)
    except (RuntimeError, KeyError, ValueError):  # The process that holds it has ended; nobody is left to be told.
        pass


def _let_hear(store: Any, others: int) -> None:
    """Cuts the others off, and keeps for a while what they then ask; it would end with this process, which holds it."""
    held = distributed.distributed_c10d._get_default_store()
    distributed.destroy_process_group()
    end = time.monotonic() + FAREWELL
    while store.add(HEARD, 0) < others and time.monotonic() < end:
        time.sleep(0.02)
    del held


def _heard(processes: int) -> str | None:
    """What the process has told that failed; None where nobody can be asked any more."""
    try:
        store = _store()
    except (RuntimeError, KeyError, ValueError):  # The first process holds it, and has ended.
        return None
    try:
        store.wait([FAILURE], PATIENCE)
        told = str(store.get(FAILURE), errors="replace")
        store.add(HEARD, 1)
        return told
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
    file = os.environ.get(ERROR_FILE)
    if file:
        extra = {"py_callstack": line, "timestamp": str(int(time.time()))}
        with Path(file).open("w", encoding="utf-8") as stream:
            json.dump({"message": {"message": line, "extraInfo": extra}}, stream)
