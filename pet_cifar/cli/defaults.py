"""The loggers and callbacks that a run of the command line has unless the user names others."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from pet_cifar.callbacks import (
    BestCheckpoint,
    Board,
    CustomScalars,
    HyperParameters,
    LastCheckpoint,
    LogPosition,
    PredictionWriter,
    ProgressBar,
    RunCard,
    RunRecord,
    ThroughputMonitor,
)
from pet_cifar.callbacks.images.base import ImageCallback
from pet_cifar.callbacks.run_loggers import RunEvents, RunMetrics
from pet_cifar.cli.options import choices
from pet_cifar.data.links import refuse_links
from pet_cifar.data.root import is_writable
from pet_cifar.errors import InputError
from pet_cifar.names import printable

log = logging.getLogger(__name__)

LOGS = Path("lightning_logs")

FileLogger = TensorBoardLogger | CSVLogger


def new_run(name: str, default_root_dir: str | Path | None = None) -> list[FileLogger]:
    """The loggers of a run that gets a number of its own.

    Args:
        name: The name of the runs' directory.
        default_root_dir: The folder of ``lightning_logs``; None takes the working directory.
    """
    logs = Path(default_root_dir or "").expanduser() / LOGS
    tensorboard = RunEvents(logs, name, default_hp_metric=False)
    return [tensorboard, RunMetrics(logs, name, tensorboard.version)]


def scored_run(run: Path, default_root_dir: str | Path | None = None) -> list[FileLogger]:
    """The logger of a run that is scored; a CSVLogger would delete the run's ``metrics.csv``.

    A run that cannot be written to, such as a colleague's, gets its results in a new directory of one's own.

    Args:
        run: The run directory.
        default_root_dir: The folder of one's own ``lightning_logs``; None takes the working directory.

    Raises:
        InputError: A link in the run would lead what is written elsewhere.
    """
    if not is_writable(run):
        loggers = new_run(run.parent.name or run.name, default_root_dir)
        places = map(printable, (str(run), loggers[0].log_dir))
        log.warning("%s cannot be written to, so that the results go to %s", *places)
        return loggers
    # Checkpoints are only read.
    refuse_links(path for path in run.rglob("*") if path.relative_to(run).parts[0] != "checkpoints")
    logger = RunEvents(run.parent.parent, run.parent.name, run.name, default_hp_metric=False)
    logger.suffix = ""
    return [logger]


def claim(loggers: Sequence[FileLogger]) -> Path:
    """Makes the directory of a run.

    Another run that started at the same time may have taken the free number; then this run takes the next one.

    Raises:
        InputError: No directory can be made there.
    """
    while True:
        directory = Path(loggers[0].log_dir)
        try:
            directory.mkdir(parents=True)
            return directory
        except OSError as error:
            # A file, or a link that leads nowhere, may be in the way of a directory around it.
            if not isinstance(error, FileExistsError) or not directory.is_dir():
                raise InputError(
                    f"cannot make the run directory {directory}: {error.strerror}; move away what is there, or put "
                    "runs elsewhere: --trainer.default_root_dir DIR"
                ) from error
            number = int(loggers[0].version) + 1
            for logger in loggers:
                logger._version = number


def default_callbacks(verb: str, command: str, trainer: Mapping[str, Any]) -> list[Callback]:
    """The callbacks that show a run and keep its results.

    Args:
        verb: The Trainer's verb, such as ``fit``.
        command: The words that the user has typed; the run's card shows them.
        trainer: The options of the Trainer.
    """
    if trainer["barebones"]:
        return []
    callbacks: list[Callback] = [ThroughputMonitor()]
    if verb != "predict":
        callbacks.append(Board())
    if verb == "fit":
        callbacks += [RunCard(command), RunRecord(command), CustomScalars()]
        if trainer["enable_autolog_hparams"]:
            callbacks.append(HyperParameters())
    callbacks += [
        kind()
        for kind in choices([ImageCallback])
        if issubclass(kind, ImageCallback)
        and kind.by_default
        and (verb == "fit" or (kind.shows_predictions and verb != "predict"))
    ]
    # Without a logger there is no run directory, and Lightning would write into the working one.
    if trainer["logger"] is not False:
        callbacks.append(PredictionWriter())
    if trainer["enable_progress_bar"] is not False:
        callbacks.append(ProgressBar())
    keeps = trainer["enable_checkpointing"] is not False and trainer["logger"] is not False
    if keeps and verb == "fit":
        monitor = None if trainer["limit_val_batches"] == 0 else "val/acc"
        callbacks += [LogPosition(), BestCheckpoint(monitor), LastCheckpoint()]
    return callbacks


def replaces(given: Callback, default: Callback) -> bool:
    """Whether the user's callback takes the place of a default one."""
    if isinstance(default, ModelCheckpoint):  # Two that write the same file would overwrite each other's.
        return isinstance(given, ModelCheckpoint) and given.filename == default.filename
    return isinstance(given, LightningProgressBar if isinstance(default, ProgressBar) else type(default))
