"""The run directory of one fit: made or gone on in, held while it trains, and removed where nothing came of it."""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

from filelock import FileLock
from lightning import Callback, Trainer

from pet_cifar.callbacks import LastCheckpoint, LogPosition
from pet_cifar.callbacks.run_loggers import RunEvents, RunMetrics
from pet_cifar.callbacks.stop_request import Stopped
from pet_cifar.cli import rank_failure
from pet_cifar.cli.defaults import FileLogger, claim, new_run, scored_run
from pet_cifar.cli.failures import NO_MEMORY
from pet_cifar.cli.run_options import RunOptions
from pet_cifar.cli.stop_signals import StopSignals, requeue
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.errors import RunRefusedError
from pet_cifar.names import printable
from pet_cifar.runs.continuation import Continuation, lock, rewind
from pet_cifar.runs.directory import run_of_checkpoint
from pet_cifar.training import ImageClassifier
from pet_cifar.training.loss_watch import SKIP


class FitDirectory:
    """The directory that the default loggers of a fit write to.

    Args:
        loggers: The default loggers.
        continued: The run that goes on; None for a new one.
        processes: The options that say how many processes it has.
    """

    def __init__(
        self, loggers: Sequence[FileLogger], continued: Continuation | None, processes: Sequence[str] = ()
    ) -> None:
        self.processes = list(processes)
        self.loggers = list(loggers)
        self.continued = continued
        self.path: Path | None = None
        self._lock: FileLock | None = None

    def open(self) -> None:
        """Makes the directory, or drops what its logs hold beyond the checkpoint.

        Raises:
            InputError: It cannot be made, another process trains in it, or its logs do not fit the checkpoint.
        """
        if self.continued is None:
            self.path = claim(self.loggers)
            self._lock = lock(self.path)
        else:
            self.path = self.continued.run
            self._lock = self.continued.held or lock(self.path)
            rewind(self.continued)

    def close(self, *, failed: bool, steps: int) -> None:
        """Lets go of the directory, and removes a new one in which a run has failed before its first step.

        Args:
            failed: Whether the run has failed, or was stopped.
            steps: The number of steps that were made.
        """
        if self._lock is not None:
            self._lock.release()
        if self.path is None or self.continued is not None or not failed:
            return
        if steps == 0 or not (any(self.path.glob("checkpoints/*.ckpt")) or (self.path / "metrics.csv").exists()):
            shutil.rmtree(self.path)
            self.path = None

    def how_to_go_on(self, *options: str) -> str | None:
        """The line for a run that was stopped or has failed; None where it has left nothing to go on from.

        Args:
            options: Those without which it would come to the same end.
        """
        if self.path is None or not (self.path / "checkpoints" / "last.ckpt").is_file():
            return None
        return f"go on with: {shlex.join(['pet-cifar', 'fit', '--resume', str(self.path), *self.processes, *options])}"


def loggers_for(asked: RunOptions, net: str, default_root_dir: str | None) -> list[FileLogger]:
    """The default loggers of a verb: in a new directory, in that of the run that goes on, or of the one that is scored.

    Args:
        asked: What the run is asked for.
        net: The class of the net, after which a run is named that has no config.
        default_root_dir: The folder of one's own ``lightning_logs``; None takes the working directory.
    """
    run = run_of_checkpoint(asked.checkpoint) if asked.checkpoint else None
    if run is not None and asked.verb != "fit":
        return scored_run(run, default_root_dir)
    if asked.continued is not None:
        return loggers_of(asked.continued.run)
    # A run that was moved into the working directory lies below no name.
    return new_run(asked.name or (run.parent.name if run else "") or net, default_root_dir)


def loggers_of(run: Path) -> list[FileLogger]:
    """The loggers that go on writing into a run directory."""
    run = run if run.parent.name else run.absolute()
    events = RunEvents(run.parent.parent, run.parent.name, run.name, default_hp_metric=False)
    return [events, RunMetrics(run.parent.parent, run.parent.name, run.name)]


def connect(callbacks: Sequence[Callback], signals: StopSignals, *, goes_on: bool) -> None:
    """Lets a signal reach the callback that saves, and says whether a run goes on in its own directory."""
    for one in callbacks:
        if isinstance(one, LastCheckpoint):
            signals.stop = one.stop
        elif isinstance(one, LogPosition):
            one.goes_on = goes_on


@contextmanager
def ended(trainer: Trainer, signals: StopSignals, directory: FitDirectory | None) -> Iterator[None]:
    """Runs a verb, and ends it: its directory is let go of, and the user is told how to go on.

    Args:
        trainer: Runs the verb.
        signals: Answers signals meanwhile.
        directory: The directory of a fit with the default loggers.

    Raises:
        SystemExit: A signal has stopped the run; the status is 128 and the signal's number, as a shell has it.
    """
    failed, steps = True, None
    if directory is not None:
        signals.before_end = lambda: directory.close(failed=True, steps=trainer.global_step)
    otherwise: list[str] | None = []
    try:
        with signals:
            yield
        failed = False
    except RunRefusedError:
        steps, otherwise = 0, None
        raise
    except Exception as error:
        otherwise = _otherwise(error, trainer, signals)
        raise
    except Stopped as stopped:
        if not trainer.is_global_zero:  # The first process tells of all of them, unless it has not been met yet.
            raise SystemExit(0 if rank_failure.is_one_of_several(trainer) else 128 + stopped.signal) from None
        print(requeue(stopped.signal) or f"stopped by {Signals(stopped.signal).name}", flush=True)
        raise SystemExit(128 + stopped.signal) from None
    finally:
        if directory is not None:
            directory.close(failed=failed, steps=trainer.global_step if steps is None else steps)
            line = directory.how_to_go_on(*otherwise) if failed and otherwise is not None else None
            if line is not None and trainer.is_global_zero:
                print(printable(line), flush=True)


def _otherwise(error: Exception, trainer: Trainer, signals: StopSignals) -> list[str] | None:
    """The options with which a run that has failed does not fail at the same step again.

    Args:
        error: What it has failed with.
        trainer: Runs it.
        signals: Know with which step training began.

    Returns:
        The options; None where it was refused before a step of its own, as it would be again.
    """
    if signals.first_step is None:
        return None
    # The kind of an error does not tell: the loss or the memory of another process may have ended this one.
    if SKIP in str(error):
        net = trainer.lightning_module
        # --optimizer has a rate of its own.
        if "configure_optimizers" in vars(net) or not isinstance(net, ImageClassifier):
            return SKIP.split()
        return ["--model.lr", f"{net.lr / 10:.3g}"]
    data = image_data_of(trainer)
    if NO_MEMORY in str(error) and data is not None:
        return ["--data.batch_size", str(data.batch_size // 2)] if data.batch_size > 1 else None
    return [] if trainer.global_step > signals.first_step else None
