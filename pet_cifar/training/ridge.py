"""A linear head in closed form, with the score that every picture would get if it had been left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

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


def fit_ridge(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    num_classes: int,
    groups: NDArray[np.int64] | None = None,
) -> RidgeHead:
    """Solves a ridge regression for every penalty, and takes the one whose left-out scores are nearest to the truth.

    The scores of left-out pictures follow from the diagonal of the hat matrix, so that nothing is solved twice (Allen,
    "The relationship between variable selection and data augmentation and a method for prediction", 1974), and those of
    left-out groups from its blocks. Features are standardized, and the intercept is not penalized.

    Args:
        features: Shape (n, num_features).
        labels: The class numbers, shape (n,).
        num_classes: The number of classes.
        groups: The number of each picture's group, shape (n,), for pictures that show the same or the same subject: a
            picture is then scored without its whole group. None where all pictures stand alone. There are two groups or
            more.
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
    blocks = _blocks(np.arange(len(labels)) if groups is None else groups)
    projected, squares = rotated.T @ (targets - offset), rotated**2

    def left_out(penalty: float) -> Floats:
        fitted = rotated @ (projected / (values + penalty)[:, None]) + offset
        hat = squares @ (1 / (values + penalty)) + 1 / len(labels)
        residuals = (targets - fitted) / (1 - hat)[:, None]
        for rows in blocks:
            # The intercept is one more input, whose penalty is the number of pictures.
            inside = np.concatenate([rotated[rows], np.ones((*rows.shape, 1))], 2)
            weights, own = np.append(values + penalty, len(labels)), (targets - fitted)[rows]
            if inside.shape[1] <= inside.shape[2]:
                block = (inside / weights) @ inside.transpose(0, 2, 1)
                residuals[rows] = np.linalg.solve(np.eye(rows.shape[1]) - block, own)
            else:  # This is the same by Woodbury's identity, with a matrix of as many rows as there are inputs.
                across = inside.transpose(0, 2, 1)
                residuals[rows] = own + inside @ np.linalg.solve(np.diag(weights) - across @ inside, across @ own)
        return np.asarray(targets - residuals)

    errors = [((left_out(penalty) - targets) ** 2).mean() for penalty in PENALTIES]
    penalty = float(PENALTIES[int(np.argmin(errors))])
    # The weights follow from those of the pictures, whichever Gram matrix was solved.
    solved = rotated @ (projected / (values + penalty)[:, None])
    weight = (inputs.T @ (targets - offset - solved)).T / penalty / deviation
    return RidgeHead(weight, offset - weight @ mean, penalty, left_out(penalty))


def _blocks(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of the groups of two pictures or more, those of one size together, shape (groups, size)."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    sizes = sorted({len(rows) for rows in members} - {1})
    return [np.stack([rows for rows in members if len(rows) == size]) for size in sizes]


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


def accuracy_interval(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> tuple[float, float]:
    """The 95 % interval of an accuracy, where pictures of a group are right or wrong together.

    It is Wilson's interval of as many pictures as the groups are worth, which is the number of pictures over the design
    effect, with the quantile of Student's t for the groups (Korn and Graubard, "Confidence intervals for proportions
    with small expected number of positive counts estimated from survey data", 1998).

    Args:
        right: Whether each picture is right, shape (n,).
        groups: The number of each picture's group, shape (n,).
    """
    count, share = len(right), float(right.mean())
    _, places = np.unique(groups, return_inverse=True)
    number = int(places.max()) + 1
    if number == count:
        return wilson_interval(int(right.sum()), count)
    # All right or all wrong tells nothing of how much the pictures of a group differ.
    worth = float(number)
    if 0 < share < 1:
        sums = np.bincount(places, right - share)
        variance = number / max(1, number - 1) * float((sums**2).sum()) / count**2
        worth = min(count, share * (1 - share) / max(variance, 1e-12))
    return wilson_interval(share * worth, worth, float(student_t.ppf(0.975, max(1, number - 1))))


def wilson_interval(right: float, count: float, z: float = 1.959964) -> tuple[float, float]:
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
