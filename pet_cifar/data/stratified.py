"""Draws pictures at random with every class in proportion, as scikit-learn's ``train_test_split`` does.

It is written out here because importing scikit-learn takes up to a second, which every run would wait for, and because
a split must not change with scikit-learn's version.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def proportional_rows(labels: Sequence[str], size: float | int, seed: int) -> list[int]:
    """The rows that are taken, of each class in proportion and one at least.

    Args:
        labels: The class of each row.
        size: The share of the rows to take, or their number.
        seed: The same seed and labels give the same rows everywhere.
    """
    taken = _drawn(labels, size, seed)
    missing = set(labels) - {labels[row] for row in taken}
    shuffled = np.random.default_rng(seed).permutation(len(labels)).tolist()
    for label in sorted(missing):
        own = [row for row in shuffled if labels[row] == label]
        share = size if isinstance(size, float) else size / len(labels)
        taken += own[: max(1, round(share * len(own))) if len(own) > 1 else 0]
    return taken


def _drawn(labels: Sequence[str], size: float | int, seed: int) -> list[int]:
    """The rows that scikit-learn would draw; none where a class has one row, or no row on one of the two sides."""
    # scikit-learn rounds up.
    count = math.ceil(size * len(labels)) if isinstance(size, float) else size
    _, numbers, per_class = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if per_class.min() < 2 or min(count, len(labels) - count) < len(per_class):
        return []
    # NumPy promises that this generator, which scikit-learn uses, gives the same numbers in every version.
    random = np.random.RandomState(seed)
    left = _in_proportion(per_class, len(labels) - count, random)
    drawn = _in_proportion(per_class - left, count, random)
    rows: list[int] = []
    for number, own in enumerate(np.split(np.argsort(numbers, kind="stable"), np.cumsum(per_class)[:-1])):
        shuffled = own[random.permutation(len(own))]
        rows += shuffled[left[number] : left[number] + drawn[number]].tolist()
    return rows


def _in_proportion(per_class: NDArray[np.int64], count: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """How many of each class come to ``count`` of all; chance decides between equal remainders."""
    exact = per_class / per_class.sum() * count
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    remainder = exact - whole
    missing = int(count - whole.sum())
    for value in np.unique(remainder)[::-1]:
        if missing == 0:
            break
        (alike,) = np.where(remainder == value)
        raised = random.choice(alike, size=min(len(alike), missing), replace=False)
        whole[raised] += 1
        missing -= len(raised)
    return whole
