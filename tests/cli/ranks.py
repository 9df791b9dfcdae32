"""Runs of several processes that are started by hand, with the environment that ``torchrun`` gives them."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning import Callback

from pet_cifar.cli.main import main
from tests.cli.kills import take_own_lock

SPREAD = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
ALONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
LONGEST = 300
"""Seconds after which a test gives its processes up."""


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def torchrun_environment(rank: int, processes: int, port: int, nodes: int = 1) -> dict[str, str]:
    """What ``torchrun`` sets for one process.

    Args:
        rank: The number of the process.
        processes: The number of all processes.
        port: The port of the first process.
        nodes: The number of machines, which have as many processes each.
    """
    local = processes // nodes
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": str(rank % local),
        "LOCAL_WORLD_SIZE": str(local),
        "GROUP_RANK": str(rank // local),
        "GROUP_WORLD_SIZE": str(nodes),
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": str(processes),
        "ROLE_NAME": "default",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def together(
    *commands: Sequence[str],
    callbacks: Sequence[Sequence[Callback]] = (),
    before: Sequence[Callable[[], None]] = (),
) -> tuple[list[int], list[str], str]:
    """Runs one command in each of several forks of this process.

    Args:
        commands: The command of each process.
        callbacks: Callbacks of each.
        before: What each calls first.

    Returns:
        The exit status of each, or minus the number of the signal that ended it; what each has printed; and what all
        have printed, in the order of time.
    """
    port, children = free_port(), []
    number = len(list(Path().glob("together_*")))
    everything = Path(f"together_{number}.txt")
    outs = [Path(f"rank_{rank}_of_{number}.txt") for rank in range(len(commands))]
    sys.stdout.flush()
    for rank, command in enumerate(commands):
        child = os.fork()
        if child == 0:
            _run(rank, len(commands), port, command, outs[rank], everything, callbacks, before)
        children.append(child)
    statuses = _wait(children)
    texts = [out.read_text() for out in outs]
    return statuses, texts, everything.read_text()


def _run(
    rank: int,
    processes: int,
    port: int,
    command: Sequence[str],
    out: Path,
    everything: Path,
    callbacks: Sequence[Sequence[Callback]],
    before: Sequence[Callable[[], None]],
) -> None:
    status = 70
    take_own_lock()
    try:
        for number in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = _Both(1, everything), _Both(2, everything)
        os.environ.update(torchrun_environment(rank, processes, port))
        if before:
            before[rank]()
        main(command, callbacks=callbacks[rank] if callbacks else ())
        status = 0
    except SystemExit as end:
        status = int(str(end.code))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Both:
    """Writes to a file of this process and to one that all share."""

    encoding = "utf-8"

    def __init__(self, number: int, shared: Path) -> None:
        self._number = number
        self._shared = os.open(shared, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, text: str) -> int:
        content = text.encode(errors="backslashreplace")
        os.write(self._number, content)
        os.write(self._shared, content)
        return len(text)

    def flush(self) -> None:
        """Does nothing: everything is written at once."""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._number


def _wait(children: Sequence[int]) -> list[int]:
    ends: dict[int, int] = {}
    deadline = time.monotonic() + LONGEST
    while len(ends) < len(children):
        for child in children:
            if child not in ends:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    ends[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    return [ends[child] for child in children]
