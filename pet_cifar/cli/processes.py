"""Runs of ``fit`` and ``test`` in processes of their own, on one device each, with the time that is left."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO

from pet_cifar.durations import described
from pet_cifar.errors import disk_errors


def visible_devices() -> list[str]:
    """The names of the CUDA devices that this process may use, as the environment variable names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return named[:count] or [str(number) for number in range(count)]


END_SECONDS = 60
"""How long a process may take to keep its checkpoint after Ctrl-C, before it is killed."""


class Processes:
    """Runs ``pet-cifar`` in processes of their own, and can end those that are running.

    They have a session of their own, so that Ctrl-C reaches this program alone, which passes it on once. What they
    print goes through a pipe, so that they end soon where this program is killed.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.is_stopped = False

    def run(
        self, words: Sequence[str], log: Path, device: str | None = None, extra: Mapping[str, str] | None = None
    ) -> int:
        """Runs one command to its end.

        Args:
            words: The command and its options.
            log: The file to which what it prints is added.
            device: The CUDA device that it may use; None leaves it all.
            extra: Further environment variables.

        Returns:
            The exit status, negative where a signal ended the process.

        Raises:
            InputError: The log cannot be written.
        """
        environment = {**os.environ, **(extra or {}), "PYTHONUNBUFFERED": "1"}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        command = [sys.executable, "-m", "pet_cifar", *words]
        with disk_errors(log, ""):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab", buffering=0) as file:
                file.write(f"$ pet-cifar {shlex.join(words)}\n".encode(errors="backslashreplace"))
                with self._lock:
                    if self.is_stopped:
                        return -signal.SIGINT
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        start_new_session=True,
                    )
                    self._running.add(process)
                try:
                    assert process.stdout is not None
                    with process, process.stdout as lines:
                        _copy(lines, file, process)
                finally:
                    with self._lock:
                        self._running.discard(process)
        return process.returncode

    def stop(self) -> None:
        """Ends what is running as Ctrl-C does, which keeps its last checkpoint, and lets nothing begin."""
        with self._lock:
            self.is_stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)


def _copy(lines: IO[bytes], file: RawIOBase, process: subprocess.Popen[bytes]) -> None:
    try:
        for line in lines:
            file.write(line)
    except BaseException:  # The disk is full, or this program is to end; the process does not go on unseen.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Lets SIGTERM end this program as an exit does, so that what it has begun is ended as well."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_error(log: Path) -> str:
    """The line with which a command told what was wrong, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()]
    told = [line for line in lines if line.startswith("pet-cifar: error: ")]
    return (told or [line for line in lines if line] or ["it printed nothing"])[-1].removeprefix("pet-cifar: error: ")


class TimeLeft:
    """Foretells how long the runs take that are not made yet, from those that are.

    Args:
        names: The config of each run that is still to be made.
        lanes: How many runs go at a time.
        expected: The seconds of a run before any was made; None where nobody can tell.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        lanes: int = 1,
        expected: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = list(names)
        self._lanes = lanes
        self._expected = expected
        self._clock = clock
        self._seconds: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def start(self) -> float:
        """The reading of the clock at the begin of a run."""
        return self._clock()

    def done(self, name: str, began: float, *, counts: bool = True) -> float:
        """Notes that a run has ended, and gives its seconds; one that failed says nothing of the others."""
        seconds = self._clock() - began
        with self._lock:
            self._waiting.remove(name)
            if counts:
                self._seconds.setdefault(name, []).append(seconds)
        return seconds

    def left(self) -> float | None:
        """The seconds until all runs are made; None where nobody can tell."""
        with self._lock:
            known = [one for seconds in self._seconds.values() for one in seconds]
            otherwise = sum(known) / len(known) if known else self._expected
            if otherwise is None and self._waiting:
                return None
            each = [sum(own) / len(own) if (own := self._seconds.get(name)) else otherwise for name in self._waiting]
        return sum(one for one in each if one is not None) / min(self._lanes, max(1, len(each)))

    def words(self) -> str:
        """What is left, in words."""
        left = self.left()
        if not self._waiting:
            return "all runs are made"
        return f"{len(self._waiting)} left, " + ("time unknown yet" if left is None else f"about {described(left)}")
