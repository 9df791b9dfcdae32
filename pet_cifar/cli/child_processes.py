"""The processes of a run that Lightning starts itself: none is left waiting for one that has ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed

from pet_cifar.cli import rank_failure
from pet_cifar.cli.rank_failure import ERROR_FILE

PARENT = "PET_CIFAR_FIRST_PROCESS"
"""The environment variable in which a process that was started here finds the number of the one that started it."""
CPP_LOG = "TORCH_CPP_LOG_LEVEL"
"""The environment variable that says from which level on torch's parts in C++ print."""
PERIOD = 0.25
"""The seconds between two looks at the processes."""
FAREWELL = 5.0
"""The seconds that the others have to end once the first process has failed or was stopped."""
UNMET, MET = 1.0, 30.0
"""The seconds that the first process has to end by itself once another has ended, before and after they have met."""


class WatchedLauncher(_SubprocessScriptLauncher):
    """Starts the other processes as Lightning does, and tells why one of them has ended.

    Lightning's own watch kills the first process within five seconds, so that the last line is not the error.
    Nothing but a thread can end a process that waits within torch for another that will never come.

    Args:
        trainer: Runs the verb.
        before_end: Is called before a process ends that waits in vain.
    """

    def __init__(self, trainer: Trainer, before_end: Callable[[], None]) -> None:
        strategy: Any = trainer.strategy
        super().__init__(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
        self._before_end = before_end
        self._errors = ""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Starts the processes, then calls the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        self._start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def _start(self) -> None:
        descriptor, self._errors = tempfile.mkstemp(prefix="pet_cifar_", suffix=".json")
        os.close(descriptor)
        # Where the first process is killed, the others would print where in torch they were; one tells of it in a line.
        own = {ERROR_FILE: self._errors, CPP_LOG: os.environ.get(CPP_LOG, "ERROR"), PARENT: str(os.getpid())}
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            self._call_children_scripts()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        threading.Thread(target=watch, args=(self.procs, self._give_up), daemon=True).start()

    def _give_up(self, rank: int, status: int) -> None:
        line, own = last_words(rank, self.num_processes * self.num_nodes, status, Path(self._errors))
        for process in self.procs:
            process.kill()
        self.forget()
        with suppress(Exception):
            self._before_end()
        sys.stdout.flush()
        print(line, file=sys.stderr, flush=True)
        os._exit(own)

    def forget(self) -> None:
        """Removes the file of what the processes have failed with."""
        if self._errors:
            Path(self._errors).unlink(missing_ok=True)


def watch(processes: Sequence[subprocess.Popen[Any]], give_up: Callable[[int, int], None]) -> None:
    """Looks at the processes until all have ended well, or one has ended otherwise.

    Args:
        processes: The processes from the second one on.
        give_up: Is called with the number of the process that has ended, and its status, where this process has not
            ended meanwhile.
    """
    while True:
        statuses = [process.poll() for process in processes]
        if all(status == 0 for status in statuses):
            return
        for rank, status in enumerate(statuses, 1):
            if status:
                _let_end()
                give_up(rank, status)
                return
        time.sleep(PERIOD)


def _let_end() -> None:
    """Gives this process the time to end by itself once another has ended."""
    since = time.monotonic()
    while time.monotonic() - since < (MET if distributed.is_initialized() else UNMET):
        time.sleep(PERIOD)


def watch_first(first: int, speaks: bool) -> None:
    """Ends this process once the one that started it has ended, for which it might wait for half an hour.

    Args:
        first: The system's number of that process.
        speaks: Whether this one is to tell of it.
    """
    while os.getppid() == first:
        time.sleep(PERIOD)
    _let_end()
    if speaks:
        print(f"pet-cifar: error: {rank_failure.without_a_word(0)}", file=sys.stderr, flush=True)
    os._exit(rank_failure.OtherProcessError.status)


def last_words(rank: int, processes: int, status: int, errors: Path) -> tuple[str, int]:
    """What to end with where another process has ended.

    Args:
        rank: The number of the process that has ended.
        processes: The number of all processes.
        status: Its exit status, or minus the number of the signal that has ended it.
        errors: The file in which it has said why, if it has.

    Returns:
        The last line and the exit status.
    """
    names = {int(number): number.name for number in signal.Signals}
    if status - 128 in names:
        return f"stopped by {names[status - 128]}", status
    if -status in names:
        return (
            f"pet-cifar: error: process {rank} of {processes} was ended by {names[-status]}, as happens for want of "
            "memory; the system's log may say why"
        ), 1
    try:
        said = str(json.loads(errors.read_text(encoding="utf-8"))["message"]["message"]).strip().splitlines()[-1]
    except (OSError, ValueError, LookupError, TypeError):
        said = f"it has ended with the status {status}"
    said = said.removeprefix("pet-cifar: error: ")
    return f"pet-cifar: error: process {rank} of {processes} has failed: {said}", status


def use_watched_launcher(trainer: Trainer, before_end: Callable[[], None]) -> None:
    """Lets a trainer whose processes Lightning starts watch them in our way.

    Args:
        trainer: Runs the verb.
        before_end: Is called before a process ends that waits in vain.
    """
    if first := os.environ.pop(PARENT, None):
        arguments = (int(first), os.environ.get("LOCAL_RANK") == "1")
        threading.Thread(target=watch_first, args=arguments, daemon=True).start()
    environment = getattr(trainer.strategy, "cluster_environment", None)
    is_plain = type(trainer.strategy.launcher) is _SubprocessScriptLauncher
    if is_plain and environment is not None and not environment.creates_processes_externally:
        trainer.strategy._launcher = WatchedLauncher(trainer, before_end)


@contextmanager
def end_together(trainer: Trainer) -> Iterator[None]:
    """Ends the other processes with this one, where it fails or is stopped; they would wait for it for ever.

    Args:
        trainer: Runs the verb.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, WatchedLauncher):
        yield
        return
    try:
        yield
    except BaseException:
        end = time.monotonic() + FAREWELL
        while any(process.poll() is None for process in launcher.procs) and time.monotonic() < end:
            time.sleep(0.02)
        for process in launcher.procs:
            process.kill()
            process.wait()
        raise
    finally:
        launcher.forget()
