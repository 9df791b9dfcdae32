"""Whether the net's probabilities are true."""

import numpy as np
from numpy.typing import NDArray

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import Drawn, ImageCallback, title_of
from pet_cifar.callbacks.images.drawing import reliability
from pet_cifar.callbacks.predictions import Scores
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier

MOST_CURVES = 25


class Calibration(ImageCallback):
    """Draws the reliability diagram of validation and test, and precision-recall curves of every class, the first 25.

    The expected calibration error is the mean gap between confidence and accuracy over the pictures (Guo et al.,
    arXiv 1706.04599, equation 3). TensorBoard shows the curves in its PR CustomScalars tab.

    Args:
        bins: of confidence, of equal width.
        every_n_epochs: 1 or more; 0 draws only at the end.
    """

    shows_scores = True

    def __init__(self, bins: int = 15, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self._at_least_one(bins=bins)
        self.bins = bins

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
        """Draws ``calibration/<split>`` and writes ``pr/<split>_<class>``."""
        scores = board.scores
        assert scores is not None
        edges = np.linspace(0, 1, self.bins + 1)
        counts, confidence, accuracy = bin_scores(scores, edges)
        error = float((counts * np.abs(confidence - accuracy)).sum() / counts.sum())
        picture = reliability(
            title_of("calibration", split, when),
            *(edges, counts, confidence, accuracy),
            subtitle=f"expected calibration error {100 * error:.1f} %, {counts.sum():,} pictures",
        )
        board.image(f"calibration/{split}", picture)
        for number, name in enumerate(data.class_names[:MOST_CURVES]):
            truth = (scores.label == number).numpy()
            if truth.any():  # precision and recall of a class without pictures do not exist
                board.pr_curve(f"pr/{split}_{name}", truth, scores.probabilities[:, number].numpy())


def bin_scores(
    scores: Scores, edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean confidence and accuracy of the pictures in each bin (low, high], each of shape (bins,)."""
    confidence = scores.confidence.double().numpy()
    right = (scores.prediction == scores.label).double().numpy()
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, len(edges) - 2)
    counts, total, rights = (np.bincount(place, weights, len(edges) - 1) for weights in (None, confidence, right))
    return counts.astype(np.int64), total / np.maximum(counts, 1), rights / np.maximum(counts, 1)
