"""Runs that are killed, in a process of their own, and what they leave."""

import csv
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

from pet_cifar.cli.main import main

TIMED = ("epoch_seconds", "images_per_second", "memory_gb", "hparams/train_seconds", "_hparams_/session")
"""The names of values that depend on the time that a run takes."""


class At(Callback):
    """Does something once, at one place of a run.

    Args:
        hook: The name of one of Lightning's hooks.
        epoch: The epoch.
        batch: The number of the batch, for hooks of batches.
        act: What to do.
    """

    def __init__(self, hook: str, epoch: int, batch: int, act: Callable[[], None]) -> None:
        self.is_done = False
        setattr(self, hook, lambda *args, **_: self._act(hook, epoch, batch, act, *args))

    def _act(self, hook: str, epoch: int, batch: int, act: Callable[[], None], *args: Any) -> None:
        trainer, _, *others = args
        numbers = [one for one in others if isinstance(one, int)]
        if not self.is_done and trainer.current_epoch == epoch and (not numbers or numbers[0] == batch):
            self.is_done = True
            act()


def kill_at(hook: str, epoch: int, batch: int = 0, number: int = signal.SIGKILL) -> At:
    """A callback that sends this process a signal."""
    return At(hook, epoch, batch, lambda: os.kill(os.getpid(), number))


@dataclass
class Apart:
    """A fork of this process.

    Attributes:
        pid: Its number.
        output: The file that holds what it prints.
    """

    pid: int
    output: Path

    def wait(self) -> tuple[int, str]:
        """Waits for its end; see `apart`."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.output.read_text(errors="replace")

    def signal_at(self, seconds: float, number: int) -> None:
        """Sends it a signal once it has computed for so many seconds of a processor, however busy the machine is.

        One that has ended before is left alone. Linux alone has a clock of another process.
        """
        clock = (~self.pid << 3) | 2  # The Linux kernel's CPUCLOCK_SCHED of a process.
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.clock_gettime(clock) >= seconds:
                os.kill(self.pid, number)
                return
            time.sleep(0.001)


def take_own_lock() -> None:
    """Gives a fork a lock of its own for progress bars; one that is killed while it draws would keep that of all."""
    tqdm.set_lock(threading.RLock())


def begin(work: Callable[[], object], output: Path) -> Apart:
    """Does some work in a fork of this process, which it may kill.

    Args:
        work: The work; its exit status is that of a SystemExit, 0, or 70 after another error.
        output: The file that takes what it prints.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        take_own_lock()
        try:
            number = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(number, 1)
            os.dup2(number, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            work()
            status = 0
        except SystemExit as end:
            status = int(str(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return Apart(child, output)


def apart(args: Sequence[str], *callbacks: Callback, before: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Runs a command in a fork of this process, which it may kill.

    Args:
        args: The command.
        callbacks: Callbacks of the run.
        before: Is called in the new process first.

    Returns:
        The exit status, or minus the number of the signal that ended it; and what it has printed.
    """

    def work() -> None:
        before()
        main(args, callbacks=callbacks)

    return begin(work, Path(f"output_{len(list(Path().glob('output_*')))}.txt")).wait()


def rows_of(run: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` in their order, without what depends on the time."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value and name not in TIMED} for row in rows]


def events_of(run: Path) -> list[tuple[str, int, bytes]]:
    """Tag, step and content of all of TensorBoard's events in their order, without what depends on the time."""
    found = []
    for path in sorted(run.glob("events.out.tfevents.*")):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            for value in event.summary.value:
                if not value.tag.startswith(TIMED):
                    found.append((value.tag, event.step, value.SerializeToString()))
    return found


def timed(run: Path, name: str) -> list[float]:
    """The values of one column of ``metrics.csv``."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
