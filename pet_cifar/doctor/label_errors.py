"""Finds pictures whose label the others contradict, and estimates how many labels are wrong.

Each picture is scored by a linear head on a pretrained net's features that was solved from all other pictures.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, hypergeom

from pet_cifar.training.ridge import fit_ridge

CONFIDENT = (0.25, 0.5, 0.75, 0.9)
"""The shares of the pictures, the least certain ones, that are left out one after the other; see `share_of_errors`."""
CLEAR = 0.97
"""The left-out accuracy from which on the estimated share of wrong labels is more than an upper limit."""

MANY = 0.15
"""The estimated share above which contradictions may as well be mistakes of the head."""


@dataclass(frozen=True)
class LabelErrors:
    """What the other pictures say about each picture's label.

    Attributes:
        predicted: The class number that each picture has by the others, shape (n,).
        margin: The score of each picture's label less the best of the others, shape (n,); the lower, the more likely
            the label is wrong. Scores are about 1 for the right class and -1 for the others.
        suspects: The rows whose margin is below 0, the lowest first.
        share, low, high: The estimated share of wrong labels, and its 95 % interval.
        is_upper_limit: Whether the features tell the classes apart too badly for more than an upper limit.
    """

    predicted: NDArray[np.int64]
    margin: NDArray[np.float64]
    suspects: NDArray[np.int64]
    share: float
    low: float
    high: float
    is_upper_limit: bool

    @property
    def accuracy(self) -> float:
        """The share of the pictures whose label the others confirm."""
        return 1 - len(self.suspects) / len(self.margin)


def find_label_errors(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    num_classes: int,
    groups: NDArray[np.int64] | None = None,
) -> LabelErrors:
    """Scores every picture by a head that has not seen it.

    Args:
        features: Shape (n, num_features).
        labels: The class numbers that are to be examined, shape (n,).
        num_classes: The number of classes, 2 or more.
        groups: The number of each picture's group, shape (n,); a picture is judged by other groups alone.
    """
    scores = fit_ridge(features, labels, num_classes, groups).left_out
    own = scores[np.arange(len(labels)), labels]
    others = np.where(labels[:, None] == np.arange(num_classes), -np.inf, scores)
    margin = own - others.max(1)
    suspects = np.flatnonzero(margin < 0)
    best, second = np.partition(scores, -2, axis=1)[:, [-1, -2]].T
    share, low, high = share_of_errors(best - second, margin < 0)
    predicted = np.where(margin < 0, others.argmax(1), labels)
    accuracy = 1 - len(suspects) / len(labels)
    # Where the features know nothing, the labels contradict them as often as by guessing.
    is_upper_limit = accuracy + high < CLEAR or share > MANY
    return LabelErrors(predicted, margin, suspects[np.argsort(margin[suspects])], share, low, high, is_upper_limit)


def share_of_errors(certainty: NDArray[np.float64], contradicted: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Estimates the share of wrong labels among pictures, and its 95 % interval.

    Where the head is certain, a contradiction is a wrong label and not a mistake of the head, and wrong labels do not
    depend on how certain it is. So the share among the pictures it is certain about is the share of all (the anchor
    points of Liu and Tao, arXiv 1411.7718). Of the pictures the least certain quarter is left out, and then more for as
    long as contradictions become rarer towards the certain ones, which mistakes of the head do and wrong labels do not.
    The interval is that of a sample without replacement (hypergeometric).

    Args:
        certainty: How certain the head is of each picture, whatever its label says, shape (n,).
        contradicted: Whether the head says another class than the label, shape (n,).
    """
    count = len(certainty)
    order = np.argsort(-certainty, kind="stable")
    found = np.cumsum(contradicted[order])
    sizes = [max(1, count - round(share * count)) for share in CONFIDENT]
    size = sizes[-1]
    for larger, smaller in pairwise(sizes):
        inside, more = int(found[smaller - 1]), int(found[larger - 1] - found[smaller - 1])
        between = [more, larger - smaller - more]
        if fisher_exact([between, [inside, smaller - inside]], alternative="greater").pvalue > 0.05:
            size = larger
            break
    wrong = int(found[size - 1])
    possible = np.arange(wrong, wrong + count - size + 1)
    low = possible[hypergeom.sf(wrong - 1, count, possible, size) > 0.025][0]
    high = possible[hypergeom.cdf(wrong, count, possible, size) > 0.025][-1]
    return wrong / size, float(low / count), float(high / count)
