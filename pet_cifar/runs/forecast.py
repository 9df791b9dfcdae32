"""Forecasts: how much another seed would change, and how many pictures or seeds would show a difference."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

from pet_cifar.runs.statistics import LEVEL, LEVEL_OF_SEEDS, Difference, degrees_of_freedom

ROUGHLY = 2.0
"""How much of the seeds' own variance is added to a forecast from two runs of each group; from more it is less."""
POWER = 0.8
"""The probability with which a forecast number of pictures or seeds finds a true difference."""
MOST_SEEDS = 200
MOST_PICTURES = 10**9
"""The largest numbers that are forecast."""


def deviation_between_seeds(probabilities: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """The standard deviation of the test accuracy between seeds that is to be expected, from one run alone.

    Another seed gives about the same probability to every class, and so has a picture right or wrong by chance. For
    two classes that makes ``sqrt(error / (2 n))`` (Jordan, "On the variance of neural network training with respect to
    test sets and distributions", arXiv 2304.01910). For more, the variance of a picture is the sum of p^2 - p^3 over
    its classes, where its error is 1 minus the sum of p^2; the probabilities give the ratio of the two, and the errors
    that were made its size.

    Args:
        probabilities: The probabilities of all classes, shape (n, num_classes).
        right: Whether each picture is right, shape (n,).
    """
    squares = (probabilities.astype(np.float64) ** 2).sum(1)
    cubes = (probabilities.astype(np.float64) ** 3).sum(1)
    spread, error = float((squares - cubes).sum()), float((1 - squares).sum())
    ratio = spread / error if error > 0 else 0.5
    return math.sqrt(ratio * float(1 - right.mean()) / len(right))


def pictures_needed(found: Difference, pairs: int = 1) -> float:
    """How many test pictures would show a true difference as large as the one that was found, with the same runs.

    Args:
        found: The difference.
        pairs: How many pairs are compared at once.

    Returns:
        The number of pictures; infinite where the seeds vary too much, or where there is no difference.
    """
    if found.is_of_nets:
        reach = float(norm.ppf(1 - LEVEL / pairs / 2) + norm.ppf(POWER))
        # The exact test takes whole pictures, which costs about one over the difference (Fleiss, 1981).
        count = found.noise.variance(1, 1) * (reach / found.mean) ** 2 if found.mean else math.inf
        return count + (1 / abs(found.mean) if found.mean else 0.0)
    if not found.mean or _shown_at(found, MOST_PICTURES, found.runs, pairs) > abs(found.mean):
        return math.inf
    low, high = 1.0, float(MOST_PICTURES)
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _shown_at(found, middle, found.runs, pairs) <= abs(found.mean) else (middle, high)
    return high


def _shown_at(found: Difference, count: float, runs: int, pairs: int) -> float:
    """The difference that ``count`` pictures and ``runs`` runs of each group would show, two or more."""
    raw = (found.noise.seeds + found.noise.runs / count) / runs
    variance = found.noise.variance(count, runs)
    # Few seeds tell their own noise only roughly, and seem to vary by themselves now and then also where they do not.
    variance += ROUGHLY / max(1, found.runs - 1) * raw
    degrees = degrees_of_freedom(max(1, 2 * (runs - 1)), variance, raw) if raw else math.inf
    critical = float(student_t.ppf(1 - LEVEL_OF_SEEDS / pairs / 2, degrees))
    # This is the noncentral t distribution's quantile, approximately (Johnson and Welch, 1940).
    reach = critical * (1 - 1 / (4 * degrees)) + float(norm.ppf(POWER)) * math.sqrt(1 + critical**2 / (2 * degrees))
    return reach * math.sqrt(variance)


def seeds_needed(found: Difference, pairs: int = 1) -> float:
    """How many runs of each group would show a true difference as large as the one that was found, on these pictures.

    Args:
        found: The difference.
        pairs: How many pairs are compared at once.

    Returns:
        The number of runs, 2 or more; infinite where no number up to `MOST_SEEDS` would.
    """
    for runs in range(2, MOST_SEEDS + 1):
        if abs(found.mean) >= _shown_at(found, found.pictures, runs, pairs):
            return runs
    return math.inf
