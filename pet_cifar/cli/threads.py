"""How many threads a command computes with, and what its threads do while they wait.

The number changes results in their last bits, since sums are divided among the threads. So it is chosen once, is kept
in the run's record, and a run that goes on takes the number that it had.
"""

import os
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from pet_cifar.cli.plain_parser import split_words
from pet_cifar.errors import InputError
from pet_cifar.hardware import cores

HELP = (
    "How many threads compute; without it, OMP_NUM_THREADS, or for fit as many as there are cores that nobody else "
    "keeps busy, and for the other verbs as many as there are cores."
)
STAT = Path("/proc/stat")
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""The variables with which a user says how threads wait."""
FEW_TURNS = "1000"
"""How often a thread looks for work before it sleeps.

GNU's OpenMP takes this number, and not 300,000, where a program has more threads than cores; it knows of no other
program.
"""


def share_cores(environ: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads that wait leave their core to others after some microseconds, unless the user says how they wait.

    By default they look for work for milliseconds, so that two runs on the same cores hinder each other by a factor. It
    must be called before torch is imported, which reads these variables.
    """
    if not any(name in environ for name in SPINNING):
        environ["GOMP_SPINCOUNT"] = FEW_TURNS
        # These are milliseconds, for torch built with Intel's OpenMP.
        environ["KMP_BLOCKTIME"] = "0"


def check_threads(words: Sequence[str]) -> None:
    """Refuses a number of threads that is none.

    Args:
        words: The options.

    Raises:
        InputError: ``--threads`` is not a whole number of 1 or more.
    """
    for text in split_words(words, "--threads")[0]:
        if text not in ("null", "~"):
            check_number(text)


def check_number(number: object) -> int:
    """The number of threads.

    Raises:
        InputError: It is not a whole number of 1 or more.
    """
    if not str(number).isdecimal() or int(str(number)) < 1:
        raise InputError(f"--threads {number}: give how many threads compute, a whole number of 1 or more")
    return int(str(number))


class OtherLoad:
    """Watches how busy other processes keep the cores, from when it is made."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """How many cores others have kept busy since then; 0 where the system does not tell."""
        busy, seconds = _busy_seconds(), time.monotonic() - self._began
        if busy is None or self._busy is None or seconds <= 0:
            return 0.0
        return max(0.0, busy - self._busy - (_own_seconds() - self._own)) / seconds


def _busy_seconds() -> float | None:
    """The seconds that all cores together were busy since the machine started."""
    if not STAT.is_file():
        return None
    user, nice, system, _, _, interrupts, soft = map(int, STAT.read_text().splitlines()[0].split()[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


def free_cores(load: OtherLoad) -> int:
    """How many of the cores that this process may use others leave free, at least 1."""
    return max(1, min(cores(), round((os.cpu_count() or 1) - load.cores())))


def threads_of_fit(load: OtherLoad | None, run: Path | None) -> tuple[int | None, str]:
    """The threads of a fit whose user has not said how many.

    Args:
        load: What others do; None where nobody has watched.
        run: The run that goes on; None for a new one.

    Returns:
        The number, or None for what torch takes by itself; and a line for the user, which is empty where all cores are
        used.
    """
    if any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        return None, ""
    if run is not None and (number := threads_of_run(run)) is not None:
        line = f"threads: {number}, with which the run has begun; --threads N takes another number"
        return number, line if number < cores() else ""
    if load is None:
        return None, ""
    number = free_cores(load)
    line = f"threads: {number} of {cores()}, since others keep cores busy; --threads {cores()} takes all"
    return number, line if number < cores() else ""


def threads_of_run(run: Path) -> int | None:
    """The threads that a run has begun with; None where its record does not say."""
    # torch is imported with it, which this module must not do before it has set how threads wait.
    from pet_cifar.callbacks.experiment import read_record

    found = (read_record(run) or {}).get("threads")
    return found if type(found) is int and found > 0 else None
