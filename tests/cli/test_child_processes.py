"""The first process ends with the error of one that Lightning has started, and takes the others with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pet_cifar.cli import child_processes
from pet_cifar.cli.child_processes import last_words, watch
from tests.cli.ranks import SPREAD


def ending(status: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sh", "-c", "kill -9 $$" if status == "killed" else f"exit {status}"])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["0", "0"], []), (["0", "2"], [(2, 2)]), (["143", "0"], [(1, 143)]), (["0", "killed"], [(2, -signal.SIGKILL)])],
)
def test_the_first_that_ends_otherwise_than_well_is_told(
    statuses: list[str], expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_processes, "UNMET", 0.0)
    told: list[tuple[int, int]] = []
    processes = [ending(status) for status in statuses]
    watch(processes, lambda rank, status: told.append((rank, status)))
    assert told == expected
    for process in processes:
        process.wait()


@pytest.mark.parametrize(
    ("status", "noted", "line", "own"),
    [
        (143, "", "stopped by SIGTERM", 143),
        (130, "", "stopped by SIGINT", 130),
        (-9, "", "pet-cifar: error: process 1 of 2 was ended by SIGKILL", 1),
        (2, "pet-cifar: error: lr is -1", "pet-cifar: error: process 1 of 2 has failed: lr is -1", 2),
        (1, "Traceback:\n  x\nZeroDivisionError: no\n", "pet-cifar: error: process 1 of 2 has failed: ZeroDivision", 1),
        (70, "", "pet-cifar: error: process 1 of 2 has failed: it has ended with the status 70", 70),
    ],
)
def test_the_last_line_and_the_status(
    status: int, noted: str, line: str, own: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pet_cifar.cli.rank_failure import note_for_torchrun

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    file.touch()
    if noted:
        note_for_torchrun(noted)
    said, found = last_words(1, 2, status, file)
    assert (said.startswith(line), found) == (True, own), said


ACT = """
import os, signal
from lightning import Callback

class Act(Callback):
    def __init__(self, rank: int = 1, act: str = "raise") -> None:
        self.rank, self.act = rank, act

    def setup(self, trainer, *args, **kwargs):
        if trainer.global_rank == self.rank:
            if self.act == "raise":
                raise ZeroDivisionError("this part is broken")
            os.kill(os.getpid(), getattr(signal, self.act))
"""


def ends_within(group: int, seconds: float) -> bool:
    """Whether nothing of a group of processes is left after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


WAITS = """
import os, sys, threading, time
from pet_cifar.cli import child_processes
child_processes.UNMET = 0.1
first, child = os.getpid(), os.fork()
if child:
    time.sleep(0.5)
    os._exit(0)  # The first process ends without a word.
child_processes.watch_first(first, speaks=True)
"""


def test_a_process_does_not_wait_for_the_first_one_that_is_gone() -> None:
    with Path("out.txt").open("w+") as out:
        child = subprocess.Popen([sys.executable, "-c", WAITS], stdout=out, stderr=out, start_new_session=True)
        assert child.wait(60) == 0
        assert ends_within(child.pid, 30)
        out.seek(0)
        assert "process 0 " in out.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "act", "status", "last"),
    [
        (1, "raise", 1, "process 1 of 2 has failed: ZeroDivisionError: this part is broken"),
        (0, "raise", 1, "ZeroDivisionError: this part is broken"),
        (1, "SIGTERM", 143, "stopped by SIGTERM"),
        (0, "SIGINT", 130, "stopped by SIGINT"),
        (0, "SIGKILL", -9, "the system's log may say why"),
    ],
)
def test_real_processes(rank: int, act: str, status: int, last: str) -> None:
    Path("acts.py").write_text(ACT)
    words = ["fit", "--config", "digits_residual", "--model.widths", "[4]", *SPREAD, "--trust", "acts"]
    words += ["--trainer.callbacks+", "acts.Act", "--trainer.callbacks.rank", str(rank), "--trainer.callbacks.act", act]
    with Path("out.txt").open("w+") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "pet_cifar", *words],
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            start_new_session=True,
        )
        assert child.wait(600) == status
        assert ends_within(child.pid, 60 if act == "SIGKILL" else 1)
        out.seek(0)
        lines = out.read().strip().splitlines()
        assert lines[-1].endswith(last)
        assert not [line for line in lines if "frame #" in line]
