"""The loggers of a run: what they write is on the disk at once, and a run can go on in the same files.

Lightning's own write from a thread, which waits for ever once the disk is full, and delete or tear what is there.
"""

import csv
import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from pet_cifar.data.files.replacing import replacing
from pet_cifar.errors import ELSEWHERE, InputError, disk_errors

EVENTS, OF_FIT = "events.out.tfevents.", ".fit"
"""How the names of event files begin, and how those that a fit has written end."""

_numbers = itertools.count()


class EventFile:
    """One file of TensorBoard's events; it does what TensorBoard's ``EventFileWriter`` does, without a thread.

    The file is made with the first event.

    Args:
        folder: The run directory.
        suffix: The end of the file's name.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        name = f"{EVENTS}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}{suffix}"
        self.path = folder / name
        self._file: Any = None

    def get_logdir(self) -> str:
        """The run directory."""
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Writes one event, which is then with the operating system.

        Raises:
            InputError: The disk is full, or the file cannot be written.
        """
        with disk_errors(self.path, ELSEWHERE):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
                self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._write(event)

    def _write(self, event: Event) -> None:
        RecordWriter(self._file).write(event.SerializeToString())
        self._file.flush()

    def flush(self) -> None:
        """Does nothing, since every event is written at once."""

    def reopen(self) -> None:
        """Does nothing, since the file opens with its next event."""

    def close(self) -> None:
        """Closes the file."""
        file, self._file = self._file, None
        if file is not None:
            with disk_errors(self.path, ELSEWHERE):
                file.close()


class _EventWriter(FileWriter):
    def __init__(self, folder: Path, suffix: str) -> None:
        self.event_writer = EventFile(folder, suffix)


class _Writer(SummaryWriter):
    """torch's writer of summaries, with an `EventFile`."""

    def __init__(self, folder: str, suffix: str) -> None:
        super().__init__(folder, filename_suffix=suffix)

    def _get_file_writer(self) -> FileWriter:
        writer: Any = self.file_writer
        if writer is None:
            writer = _EventWriter(Path(self.log_dir), self.filename_suffix)
            vars(self).update(file_writer=writer, all_writers={self.log_dir: writer})
        assert isinstance(writer, FileWriter)
        return writer


class RunEvents(TensorBoardLogger):
    """Lightning's TensorBoardLogger with an `EventFile`.

    Attributes:
        suffix: The end of the file's name; a run that goes on drops the later events of files with ``.fit`` alone.
    """

    suffix = OF_FIT

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The writer of summaries."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, self.suffix)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes values.

        Raises:
            InputError: The disk is full, which Lightning would call a value that cannot be logged.
        """
        try:
            super().log_metrics(metrics, step)
        except ValueError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the file; after a failure, whose error is told, nothing else is said of a full disk."""
        with suppress(*((InputError, OSError) if status == "failed" else ())):
            super().finalize(status)


class _Table(ExperimentWriter):
    """The rows of ``metrics.csv``; the file holds whole rows at any time, also where its columns change."""

    def _check_log_dir_exists(self) -> None:
        """Goes on after the rows that are there, which Lightning would delete."""
        self.path = Path(self.metrics_file_path)
        rows = read_rows(self.path)
        self.metrics_keys = list(rows[0]) if rows else []
        self.count = len(rows)

    def save(self) -> None:
        """Writes the new rows.

        Raises:
            InputError: The disk is full, or the file cannot be written.
        """
        if not self.metrics:
            return
        new = sorted({name for row in self.metrics for name in row} - set(self.metrics_keys))
        with disk_errors(self.path, ELSEWHERE):
            if new or not self.path.exists():
                keys = sorted([*self.metrics_keys, *new])
                write_rows(self.path, keys, [*read_rows(self.path), *self.metrics])
                self.metrics_keys = keys
            else:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    file.write(_text(self.metrics_keys, self.metrics))
        self.count += len(self.metrics)
        self.metrics = []


class RunMetrics(CSVLogger):
    """Lightning's CSVLogger, which keeps the rows of a run that goes on, and whose file is never torn."""

    @property
    @rank_zero_experiment
    def experiment(self) -> _Table:
        """The rows."""
        if self._experiment is None:
            self._experiment = _Table(self.log_dir)
        assert isinstance(self._experiment, _Table)
        return self._experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the last rows; after a failure, whose error is told, nothing else is said of a full disk."""
        with suppress(*((InputError, OSError) if status == "failed" else ())):
            super().finalize(status)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``; none where there is no file. What a kill has left of a last row is a row, too."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, restval=""))


def write_rows(path: Path, keys: list[str], rows: list[Any]) -> None:
    """Writes a ``metrics.csv`` anew."""
    header = dict(zip(keys, keys, strict=True))
    with replacing(path) as file:
        file.write(_text(keys, [header, *rows]).encode())


def _text(keys: list[str], rows: list[Any]) -> str:
    text = StringIO(newline="")
    csv.DictWriter(text, keys, extrasaction="ignore").writerows(rows)
    return text.getvalue()


def drawn_files(run: Path) -> Iterator[Path]:
    """The files of TensorBoard that a fit has written into its run directory; those of a test are left out."""
    yield from run.glob(f"{EVENTS}*{OF_FIT}")
    yield from run.glob("projector_config.pbtxt")
    yield from (path for path in run.glob("[0-9]*/embeddings/*") if path.is_file())
