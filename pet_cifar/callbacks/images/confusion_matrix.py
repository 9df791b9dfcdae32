"""Shows which classes the net takes for which."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, title_of
from pet_cifar.callbacks.images.drawing import PixelArray, confusion_matrix
from pet_cifar.callbacks.predictions import Predictions
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.replacing import replacing_text
from pet_cifar.errors import ELSEWHERE, InputError, disk_errors
from pet_cifar.names import as_cell, from_cell
from pet_cifar.training.classifier import ImageClassifier


class ConfusionMatrix(ImageCallback):
    """Draws the confusion matrix of validation and test, over the pictures of all processes.

    The last one of the validation is also written to ``val/confusion_matrix.csv`` in the run directory.

    Args:
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the end.
            Null is 1, where drawing takes at most a twentieth of the time.
    """

    shows_predictions = True

    def __init__(self, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``predictions/confusion_matrix/<split>``."""
        assert board.predictions is not None
        counts = count_confusions(board.predictions, data.num_classes)
        board.image(f"predictions/confusion_matrix/{split}", confusion_sheet(counts, data.class_names, split, when))
        if split == "val":
            write_confusions(board.directory / split / "confusion_matrix.csv", counts, data.class_names)


def count_confusions(predictions: Predictions, num_classes: int) -> NDArray[np.int64]:
    """Counts the pictures by label (row) and prediction (column), shape (num_classes, num_classes)."""
    return multiclass_confusion_matrix(predictions.predicted, predictions.label, num_classes).numpy().astype(np.int64)


def confusion_sheet(counts: NDArray[np.int64], names: Sequence[str], split: EvalSplit, when: str = "") -> PixelArray:
    """Draws the confusion matrix of a split with its accuracy.

    Args:
        counts: The number of pictures by label (row) and prediction (column).
        names: The names of the classes.
        split: The split, for the title.
        when: The time, for the title.
    """
    right = counts.trace() / max(counts.sum(), 1)
    subtitle = f"{100 * right:.2f} % of {counts.sum():,} pictures right (blue); shares are of the row"
    return confusion_matrix(title_of("confusion matrix", split, when), counts, names, subtitle)


def read_confusions(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Reads what `write_confusions` wrote: the names of the classes and the counts.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        names, counts = [from_cell(row[0]) for row in rows], np.array([row[1:] for row in rows], np.int64)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a confusion matrix ({error}); write it anew with test") from error
    if counts.shape != (len(names), len(names)) or not names or counts.min() < 0:
        raise InputError(f"{path} holds no confusion matrix; write it anew with test")
    return names, counts


def write_confusions(path: Path, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Writes ``label,predicted_<class>...`` with one line for each label; the file is whole or unchanged.

    Raises:
        InputError: It cannot be written.
    """
    with disk_errors(path, ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_text(path) as file:
            writer = csv.writer(file)
            writer.writerow(["label", *(f"predicted_{name}" for name in names)])
            writer.writerows([as_cell(name), *own] for name, own in zip(names, counts.tolist(), strict=True))
