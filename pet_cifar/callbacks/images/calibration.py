"""Shows whether the net's probabilities are true."""

import numpy as np
from numpy.typing import NDArray

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, title_of
from pet_cifar.callbacks.images.drawing import reliability_diagram
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier

MOST_CURVES = 25
"""The number of classes, from the first on, whose precision-recall curves are written."""


class Calibration(ImageCallback):
    """Draws the reliability diagram of validation and test, and precision-recall curves of the first 25 classes.

    The expected calibration error is the mean gap between confidence and accuracy over the pictures (Guo et al.,
    arXiv 1706.04599, equation 3). TensorBoard shows the curves in its PR Curves tab.

    Args:
        bins: The number of bins of equal width that the confidence is divided into.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the end.
            Null is 1, where drawing takes at most a twentieth of the time.
    """

    shows_predictions = True

    def __init__(self, bins: int = 15, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)
        self._check_at_least_one(bins=bins)
        self.bins = bins

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``uncertainty/calibration/<split>`` and writes ``pr/<split>_<class>``."""
        predictions = board.predictions
        assert predictions is not None
        edges = np.linspace(0, 1, self.bins + 1)
        right = (predictions.predicted == predictions.label).numpy()
        counts, confidence, accuracy = bin_by_confidence(predictions.confidence.double().numpy(), right, edges)
        error = float((counts * np.abs(confidence - accuracy)).sum() / counts.sum())
        picture = reliability_diagram(
            title_of("calibration", split, when),
            *(edges, counts, confidence, accuracy),
            subtitle=f"expected calibration error {100 * error:.1f} %, {counts.sum():,} pictures",
        )
        board.image(f"uncertainty/calibration/{split}", picture)
        for number, name in enumerate(data.class_names[:MOST_CURVES]):
            truth = (predictions.label == number).numpy()
            if truth.any():  # A class without pictures has no precision and recall.
                board.pr_curve(f"pr/{split}_{name}", truth, predictions.probabilities[:, number].numpy())


def bin_by_confidence(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Bins pictures by their confidence.

    Args:
        confidence: The probability of the predicted class of each picture, shape (n,).
        right: Whether each prediction is right, shape (n,).
        edges: The edges of the bins (low, high], shape (bins + 1,).

    Returns:
        Count, mean confidence and accuracy of the pictures in each bin, each of shape (bins,).
    """
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, len(edges) - 2)
    counts, confidences, rights = (np.bincount(bins, weights, len(edges) - 1) for weights in (None, confidence, right))
    return counts.astype(np.int64), confidences / np.maximum(counts, 1), rights / np.maximum(counts, 1)
