"""A linear head in closed form, with the score that every picture would get if it had been left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PENALTIES = np.logspace(-1, 6, 36)
"""The penalties that are tried, for standardized features."""


@dataclass(frozen=True)
class RidgeHead:
    """A ridge regression from features to one score a class, about 1 for the right one and -1 for the others.

    Attributes:
        weight: Shape (num_classes, num_features).
        bias: Shape (num_classes,).
        penalty: The penalty that was chosen.
        left_out: The scores of each picture from all others alone, shape (n, num_classes).
    """

    weight: Floats
    bias: Floats
    penalty: float
    left_out: Floats


def fit_ridge(features: NDArray[np.floating], labels: NDArray[np.int64], num_classes: int) -> RidgeHead:
    """Solves a ridge regression for every penalty, and takes the one whose left-out scores are nearest to the truth.

    The scores of left-out pictures follow from the diagonal of the hat matrix, so that nothing is solved twice (Allen,
    "The relationship between variable selection and data augmentation and a method for prediction", 1974). Features
    are standardized, and the intercept is not penalized.

    Args:
        features: Shape (n, num_features).
        labels: The class numbers, shape (n,).
        num_classes: The number of classes.
    """
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    # A feature that is the same for all pictures tells nothing.
    deviation = np.where(deviation > 0, deviation, 1.0)
    inputs = (features - mean) / deviation
    targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    offset = targets.mean(0)
    # The eigenvectors of the smaller of the two Gram matrices take a third of the time of a singular value
    # decomposition; what they lose in precision is far below the smallest penalty.
    if inputs.shape[1] <= len(inputs):
        values, vectors = np.linalg.eigh(inputs.T @ inputs)
        rotated = inputs @ vectors
    else:
        values, vectors = np.linalg.eigh(inputs @ inputs.T)
        values, rotated = np.clip(values, 0, None), vectors * np.sqrt(np.clip(values, 0, None))
    projected, squares = rotated.T @ (targets - offset), rotated**2

    def left_out(penalty: float) -> Floats:
        fitted = rotated @ (projected / (values + penalty)[:, None]) + offset
        hat = squares @ (1 / (values + penalty)) + 1 / len(labels)
        return np.asarray(targets - (targets - fitted) / (1 - hat)[:, None])

    errors = [((left_out(penalty) - targets) ** 2).mean() for penalty in PENALTIES]
    penalty = float(PENALTIES[int(np.argmin(errors))])
    # The weights follow from those of the pictures, whichever Gram matrix was solved.
    solved = rotated @ (projected / (values + penalty)[:, None])
    weight = (inputs.T @ (targets - offset - solved)).T / penalty / deviation
    return RidgeHead(weight, offset - weight @ mean, penalty, left_out(penalty))


def logit_scale(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The factor that makes logits of scores: the one whose cross-entropy is lowest (Guo et al., arXiv 1706.04599).

    Args:
        scores: Scores of pictures that were left out, shape (n, num_classes).
        labels: The class numbers, shape (n,).
    """
    scales = np.logspace(-1, 2, 61)
    rows = np.arange(len(labels))

    def cross_entropy(scale: float) -> float:
        logits = scale * (scores - scores.max(1, keepdims=True))
        return float((np.log(np.exp(logits).sum(1)) - logits[rows, labels]).mean())

    return float(min(scales, key=cross_entropy))


def wilson_interval(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share of ``count`` pictures (Wilson, 1927).

    Args:
        right: How many of them are right.
        count: How many there are.
        z: The quantile of the normal distribution that the interval reaches to.
    """
    share = right / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return float(center - half), float(center + half)
