"""What a run directory says of a run that was trained and tested: its predictions, its record and its options."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_cifar.callbacks.experiment import RECORD, key_of, read_options, read_record, read_seed
from pet_cifar.callbacks.prediction_writer import FORMAT as SCORED_FORMAT
from pet_cifar.callbacks.run_record import FORMAT as RECORD_FORMAT
from pet_cifar.data.files.regular import check_regular, read_json
from pet_cifar.errors import InputError
from pet_cifar.names import from_cell, printable
from pet_cifar.runs.checkpoint_file import LAST, PREVIOUS
from pet_cifar.runs.curves import Curve, read_curves
from pet_cifar.runs.directory import check_run_folder

Record = Mapping[str, Any]


@dataclass(frozen=True)
class TestedRun:
    """A run with the predictions of its test.

    Attributes:
        directory: The run directory.
        class_names: The names of the classes in the order of their numbers.
        paths: The names of the test pictures, in the order of the predictions.
        labels: The true class numbers, shape (n,).
        predicted: The class numbers that the net gave, shape (n,).
        probabilities: The probabilities of all classes, shape (n, num_classes).
        record: What ``run.json`` holds; empty for a run of an earlier version.
        scored: What ``test/scored.json`` holds; empty for a run of an earlier version.
        metrics: What ``test/metrics.json`` holds.
        options: The options of its experiment; see `pet_cifar.callbacks.experiment`.
        seed: Its seed; empty where it is not known.
    """

    __test__ = False  # This is no test for pytest.

    directory: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    record: Record
    scored: Record
    metrics: Record
    options: Record
    seed: str

    @property
    def name(self) -> str:
        """The name of the experiment's directory and of the run, such as ``digits_residual/version_0``."""
        absolute = self.directory.absolute()
        return printable(f"{absolute.parent.name}/{absolute.name}")

    @cached_property
    def experiment(self) -> str:
        """The hash of its experiment; the name of its directory where neither config nor record tells it."""
        return key_of(self.options) if self.options else self.directory.absolute().parent.name

    @property
    def trained_on(self) -> tuple[str, str]:
        """Hashes of its training and validation pictures; empty where they are not known."""
        data = self.record.get("data")
        contents = data.get("contents") if isinstance(data, dict) else None
        known = contents if isinstance(contents, dict) else {}
        return str(known.get("train", "")), str(known.get("val", ""))

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each picture is right, shape (n,)."""
        return np.asarray(self.predicted == self.labels)

    @property
    def accuracy(self) -> float:
        """The share of the pictures that are right."""
        return float(self.right.mean())

    @cached_property
    def class_accuracies(self) -> NDArray[np.float64]:
        """The accuracy of each class, shape (num_classes,); not a number for a class without pictures."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        right = np.bincount(self.labels[self.right], minlength=len(self.class_names))
        return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the accuracies of the classes that have pictures."""
        return float(np.nanmean(self.class_accuracies))

    def rows_in_order_of(self, other: "TestedRun") -> NDArray[np.int64]:
        """The rows of its pictures in the order of another run, which may have been tested in another layout."""
        if self.paths == other.paths:
            return np.arange(len(self.paths))
        place = {path: row for row, path in enumerate(self.paths)}
        return np.array([place[path] for path in other.paths], np.int64)

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """The number of each test picture's group, shape (n,); None where the pictures stand alone."""
        groups = self.scored.get("groups")
        return None if groups is None else np.array(groups, np.int64)

    @property
    def pictures(self) -> str:
        """A hash of the test pictures: of what their files hold, or of their names where only these are known."""
        lines = "\n".join(f"{path} {label}" for path, label in zip(self.paths, self.labels, strict=True))
        return str(self.scored.get("contents") or f"names {hashlib.sha256(lines.encode()).hexdigest()[:16]}")

    @cached_property
    def confusions(self) -> NDArray[np.int64]:
        """How many pictures of each class (rows) were predicted as each (columns), shape (classes, classes)."""
        size = len(self.class_names)
        return np.bincount(size * self.labels + self.predicted, minlength=size**2).reshape(size, size)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """The metrics by epoch; empty where the run has no ``metrics.csv``."""
        file = self.directory / "metrics.csv"
        return read_curves(file) if file.is_file() else {}

    @property
    def best_epoch(self) -> int | None:
        """After how many epochs the best validation accuracy was measured; None where there was no validation."""
        curve = self.curves.get("val/acc")
        return curve.epochs[int(np.argmax(curve.values))] if curve else None


def read_run(directory: Path) -> TestedRun:
    """Reads a run directory.

    Raises:
        InputError: It has no test, or a file of it cannot be read.
    """
    test = directory / "test"
    if not (test / "predictions.csv").is_file():
        raise InputError(why_untested(directory))
    table = read_predictions(test / "predictions.csv")
    scored, record = _read_json(test / "scored.json"), _read_json(directory / RECORD)
    for name, content, known in (("test/scored.json", scored, SCORED_FORMAT), (RECORD, record, RECORD_FORMAT)):
        if content.get("format", known) != known:
            raise InputError(
                f"{directory / name} was written by another version, in the format {content['format']}, where this one "
                f"reads {known}; compare with that version"
            )
    groups = scored.get("groups")
    count = len(table.paths)
    is_whole = groups is None or (isinstance(groups, list) and len(groups) == count)
    if scored.get("pictures", count) != count or not is_whole or not _are_numbers(groups or []):
        raise InputError(
            f"{test / 'predictions.csv'} has {count} pictures, where scored.json beside it says other; test the "
            f"run again: pet-cifar test --run {directory}"
        )
    return TestedRun(
        directory,
        *table,
        record,
        scored,
        _read_json(test / "metrics.json"),
        read_options(directory) or _options_of(record),
        read_seed(directory),
    )


def epochs_if_unfinished(record: Record) -> str | None:
    """How far a run came that has not reached its end, such as ``2 of 10 epochs``; None for a run that has.

    Args:
        record: What ``run.json`` holds.
    """
    state, epochs, planned = (record.get(key) for key in ("state", "epochs", "planned_epochs"))
    is_cut, words = False, f"{epochs} epochs"
    if isinstance(epochs, int) and isinstance(planned, int) and planned > 0:
        is_cut, words = state == "stopped" and epochs < planned, f"{epochs} of {planned} epochs"
    return words if is_cut or state in ("started", "unfinished") else None


def why_untested(run: Path) -> str:
    """Why a run without a test has none, and the commands that lead to one."""
    test = f"pet-cifar test --run {run}"
    epochs = epochs_if_unfinished(read_record(run) or {})
    if epochs is None:
        return f"{run} was not tested; make its predictions with: {test}"
    if not any((run / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS)):
        return f"{run} is unfinished ({epochs}) and has no checkpoint to go on from; train it anew"
    return f"{run} is unfinished ({epochs}); go on with: pet-cifar fit --resume {run}, and then: {test}"


def find_tested(path: Path) -> tuple[list[Path], list[Path]]:
    """The run directories that a path stands for: itself, or the runs of an experiment's directory.

    Returns:
        Those that have a test, and those that have none, in the order of their numbers.

    Raises:
        InputError: There is no such directory, or it holds no run.
    """
    check_run_folder(path)
    runs = [path] if _is_run(path) else sorted((one for one in path.iterdir() if _is_run(one)), key=_number)
    if not runs:
        below = sorted(str(one) for one in path.iterdir() if _holds_runs(one))
        more = f"; there are {', '.join(below[:10])}" if below else ""
        raise InputError(f"{path} is no run directory and holds none{more}")
    tested = [run for run in runs if (run / "test" / "predictions.csv").is_file()]
    return tested, [run for run in runs if run not in tested]


def _is_run(path: Path) -> bool:
    marks = ("config.yaml", RECORD, "metrics.csv", "checkpoints", "test/predictions.csv")
    try:
        return path.is_dir() and any((path / mark).exists() for mark in marks)
    except PermissionError:  # What cannot be looked into is none of the user's runs.
        return False


def _holds_runs(path: Path) -> bool:
    try:
        return path.is_dir() and any(map(_is_run, path.iterdir()))
    except PermissionError:
        return False


def _number(run: Path) -> tuple[int, str]:
    number = run.name.removeprefix("version_")
    return (int(number) if number.isdecimal() else -1, run.name)


class PredictionRows(NamedTuple):
    """A table of predictions; the columns are those of `TestedRun`."""

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def read_predictions(file: Path) -> PredictionRows:
    """Reads a table of predictions.

    Args:
        file: ``predictions.csv`` of a test.

    Raises:
        InputError: The table is damaged or another one.
    """
    number = 1
    try:
        check_regular(file)
        with file.open(newline="", encoding="utf-8") as table:
            rows = csv.reader(table)
            head = next(rows, [])
            names = tuple(name.removeprefix("p_") for name in head if name.startswith("p_"))
            if head[:3] != ["path", "label", "prediction"] or not names:
                raise ValueError("its first line is not path,label,prediction,p_<class>...")
            numbers = {name: place for place, name in enumerate(names)}
            paths, labels, predicted, probabilities = [], [], [], []
            for row in rows:
                number += 1
                values = [float(value) for value in row[3 : 3 + len(names)]]
                if len(values) != len(names) or not all(-0.001 <= value <= 1.001 for value in values):
                    raise ValueError(f"it has no {len(names)} probabilities from 0 to 1; has the training diverged?")
                label, answer = from_cell(row[1]), from_cell(row[2])
                if label not in numbers or answer not in numbers:
                    raise ValueError(f"{row[1]} or {row[2]} is no class of the first line")
                paths.append(from_cell(row[0]))
                labels.append(numbers[label])
                predicted.append(numbers[answer])
                probabilities.append(values)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{file}, line {number}: {error}; this is no table of predictions") from error
    if not paths:
        raise InputError(f"{file} holds no predictions")
    columns = np.array(labels, np.int64), np.array(predicted, np.int64), np.array(probabilities, np.float64)
    return PredictionRows(names, tuple(paths), *columns)


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int) and abs(value) < 2**62 for value in values)


def _options_of(record: Record) -> Record:
    """The options that the record of a run without a config keeps."""
    options = record.get("options")
    return options if isinstance(options, dict) else {}


def _read_json(file: Path) -> Record:
    """A JSON object; empty where the file is not there.

    Raises:
        InputError: It is damaged.
    """
    try:
        content = read_json(file) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__} where an object is expected")
    return content
