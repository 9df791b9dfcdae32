"""Shows which classes the net takes for which."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, title_of
from pet_cifar.callbacks.images.drawing import confusion_matrix
from pet_cifar.callbacks.predictions import Predictions
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier


class ConfusionMatrix(ImageCallback):
    """Draws the confusion matrix of validation and test, over the pictures of all processes.

    The last one of the validation is also written to ``val/confusion_matrix.csv`` in the run directory.

    Args:
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the end.
    """

    shows_predictions = True

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``predictions/confusion_matrix/<split>``."""
        assert board.predictions is not None
        counts = count_confusions(board.predictions, data.num_classes)
        right = counts.trace() / counts.sum()
        title = title_of("confusion matrix", split, when)
        subtitle = f"{100 * right:.2f} % of {counts.sum():,} pictures right (blue); shares are of the row"
        picture = confusion_matrix(title, counts, data.class_names, subtitle)
        board.image(f"predictions/confusion_matrix/{split}", picture)
        if split == "val":
            write_confusions(board.directory / split / "confusion_matrix.csv", counts, data.class_names)


def count_confusions(predictions: Predictions, num_classes: int) -> NDArray[np.int64]:
    """Counts the pictures by label (row) and prediction (column), shape (num_classes, num_classes)."""
    return multiclass_confusion_matrix(predictions.predicted, predictions.label, num_classes).numpy().astype(np.int64)


def write_confusions(path: Path, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Writes ``label,predicted_<class>...`` with one line for each label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", *(f"predicted_{name}" for name in names)])
        writer.writerows([name, *own] for name, own in zip(names, counts.tolist(), strict=True))
