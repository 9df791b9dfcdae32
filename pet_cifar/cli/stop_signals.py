"""The signals that end a command: a run that trains stops at its next step and keeps a checkpoint."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.callbacks.stop_request import Stopped, StopRequest
from pet_cifar.cli.interactive import is_interactive

PATIENCE = 3.0
"""After how many seconds a process ends that should have ended at once."""
ASKED = "pet-cifar: stopping at the next step, with a checkpoint; Ctrl-C once more ends at once\n"


class StopSignals(Callback):
    """Answers SIGINT (Ctrl-C), SIGTERM, SIGHUP and, under SLURM, SIGUSR1 while a verb runs.

    The first one lets a run that trains save a checkpoint after its next step; everything else ends at once, by
    `Stopped`. A second Ctrl-C ends the process, also where torch computes for long: no handler in Python runs
    meanwhile, but a thread does. The thread also ends a process that is to end at once and does not, as one that waits
    within torch for other processes that never come. A signal that was ignored when the program started, as nohup does
    with SIGHUP, stays so.

    It is a callback that keeps Lightning from setting handlers of its own. Lightning's handler of SIGTERM broadcasts
    to the other processes wherever the signal finds it, which leaves all of them waiting for each other.

    Attributes:
        stop: What the run looks at.
        before_end: Is called before the thread ends the process.
        first_step: The number of steps that were made before training began; None where it has not.
    """

    def __init__(self) -> None:
        self.stop = StopRequest()
        self.before_end: Callable[[], None] = lambda: None
        self._has_answered = False
        self.first_step: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._pipe: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in _signals()}
            for number, handler in self._before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self._answer)
            if not is_interactive():  # A notebook has such a pipe of its own.
                self._watch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe)
            self._pipe = None

    def _watch(self) -> None:
        """Starts a thread that ends the process at the second Ctrl-C, or where it does not answer."""
        reads, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._see, args=(reads,), daemon=True).start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the signals as they are when Lightning would take them, which it does after this hook."""
        if self._before:
            vars(trainer._signal_connector)["register_signal_handlers"] = lambda: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that training has begun, and from where."""
        self.first_step = trainer.global_step

    def _see(self, reads: int) -> None:
        """Sees every signal when it comes; runs in a thread of its own."""
        left = 2 if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else -1
        answered = {number for number, before in self._before.items() if before is not signal.SIG_IGN}
        with os.fdopen(reads, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                left -= number[0] == signal.SIGINT
                if left == 0:
                    os._exit(128 + signal.SIGINT)
                if number[0] in answered:
                    timer = threading.Timer(PATIENCE, self._end_unanswered, (number[0],))
                    timer.daemon = True
                    timer.start()

    def _end_unanswered(self, number: int) -> None:
        if not self._has_answered and not self.stop.is_heard and self._pipe is not None:
            with suppress(Exception):  # The process ends in any case.
                self.before_end()
            os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
            os._exit(128 + number)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        self._has_answered = True
        if self.stop.signal and number != signal.SIGINT:
            return  # SLURM, for one, sends more than one, and the checkpoint is being written.
        if self.stop.signal or not self.stop.is_heard:
            raise Stopped(number)
        self.stop.signal = number
        if getattr(rank_zero_only, "rank", 0) == 0:
            # print is not made for a handler: it may interrupt itself.
            os.write(2, ASKED.encode())


def _signals() -> list[signal.Signals]:
    names = ["SIGINT", "SIGTERM", "SIGHUP", *(["SIGUSR1"] if _is_slurm_job() else [])]
    # Windows has fewer of them.
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _is_slurm_job() -> bool:
    return bool(SLURMEnvironment.detect() and SLURMEnvironment.job_id())


def requeue(number: int) -> str | None:
    """Gives a SLURM job that is about to reach its time limit back to the queue, as Lightning does.

    Args:
        number: The signal that stopped the run.

    Returns:
        What to tell the user; None for another signal than SIGUSR1.
    """
    if not _is_slurm_job() or number != getattr(signal, "SIGUSR1", 0):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {job} could not be requeued: {getattr(error, 'stderr', None) or error}"
    return f"job {job} is requeued"
