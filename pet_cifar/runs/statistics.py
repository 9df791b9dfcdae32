"""Intervals and paired tests: pure functions of which pictures each run has right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, norm
from scipy.stats import t as student_t

Rights = NDArray[np.bool_]
"""Whether each run of a group has each picture right, shape (runs, pictures)."""
LEVEL = 0.05
"""The p-value below which one net counts as better than another net."""
LEVEL_OF_SEEDS = 0.0075
"""The same for two configs of several seeds each. It is lower, since who looks again after every further seed has many
chances to be deceived. ``benchmarks/verdicts.py`` shows that looks after 2 to 8 seeds together err in at most 5 %."""


@dataclass(frozen=True)
class Interval:
    """A quantity with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_of_seeds(values: Sequence[float]) -> Interval:
    """The mean of two accuracies or more, with the interval by Student's t (1908) over the seeds, within 0 and 1."""
    mean, count = float(np.mean(values)), len(values)
    half = float(student_t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Tests whether two nets are equally good: the exact test of McNemar (1947), a binomial test.

    Args:
        first: Whether the first net has each picture right, shape (n,).
        second: The same for the second net and the same pictures.

    Returns:
        How many pictures the first net alone has right, how many the second alone, and the two-sided p-value.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests made at once, corrected after Holm (1979)."""
    order = np.argsort(p_values)
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, p_values[number] * (len(p_values) - place)))
        corrected[number] = highest
    return corrected


@dataclass(frozen=True)
class Noise:
    """The variances that make up that of a difference of mean accuracies: (pictures + runs / k) / n + seeds / k.

    Here k is the number of runs of each group and n that of the test pictures.

    Attributes:
        pictures: The variance from picture to picture of how much better the first group is.
        runs: The variance of a picture from run to run, of both groups together.
        seeds: The variance of the true accuracies from seed to seed, of both groups together.
    """

    pictures: float
    runs: float
    seeds: float

    def variance(self, count: float, runs: float) -> float:
        """The variance of the difference for ``count`` pictures and ``runs`` runs of each group."""
        return (self.pictures + self.runs / runs) / count + self.seeds / runs


@dataclass(frozen=True)
class Difference:
    """How much better the first of two groups of runs is than the second, on the same test pictures.

    Attributes:
        mean: The difference of the mean accuracies.
        low, high: Its 95 % interval, by a bootstrap over pictures and seeds.
        p: The two-sided p-value: McNemar's for one run each, else that of the difference over its standard error.
        only_first, only_second: How many pictures only one of the two has right, on the mean over the runs.
        noise: What the difference varies by.
        degrees: The degrees of freedom of its standard error.
        runs: The number of runs of the group that has fewer.
        pictures: The number of test pictures.
        is_of_nets: Whether each group has one run, so that two nets are compared and no experiments.
    """

    mean: float
    low: float
    high: float
    p: float
    only_first: float
    only_second: float
    noise: Noise
    degrees: float
    runs: int
    pictures: int
    is_of_nets: bool

    @property
    def level(self) -> float:
        """The p-value below which the difference counts as one."""
        return LEVEL if self.is_of_nets else LEVEL_OF_SEEDS

    @property
    def p_of_looks(self) -> float:
        """The p-value with the looks after further seeds counted: below `LEVEL` the difference counts as one."""
        return min(1.0, self.p * LEVEL / self.level)

    def turned(self) -> "Difference":
        """How much better the second group is than the first."""
        return replace(
            self,
            mean=-self.mean,
            low=-self.high,
            high=-self.low,
            only_first=self.only_second,
            only_second=self.only_first,
        )


def difference(
    first: Rights,
    second: Rights,
    groups: NDArray[np.int64] | None = None,
    deviations: tuple[float, float] | None = None,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """Compares two groups of runs that were tested on the same pictures.

    The pictures are resampled with two added ones, one for each group, which keeps the interval true where the groups
    differ on few pictures (Bonett and Price, "Confidence intervals for a difference between two correlated
    proportions", 2012). The seeds' own share is what their accuracies vary by beyond what the pictures explain; where
    chance alone would make them vary as much, it is none. A t distribution with Satterthwaite's (1946) degrees of
    freedom counts that few seeds tell little of it.

    Args:
        first: Whether each run of the first group has each picture right, shape (runs, n).
        second: The same of the second group; it may have another number of runs.
        groups: The number of each picture's group, shape (n,), where pictures of a group are right or wrong together;
            None where all stand alone.
        deviations: What `deviation_between_seeds` forecasts for the two groups, for a forecast from one run each.
        resamples: How many times the pictures are drawn anew.
        seed: The seed of these draws.
    """
    ours, theirs = len(first), len(second)
    fewer, count = min(ours, theirs), first.shape[1]
    each = first.mean(0) - second.mean(0)
    only_first, only_second = _alone(first, second), _alone(second, first)
    added = 1 / fewer
    center = float(each.sum()) / (count + 2)
    of_pictures = (_squares(each - center, groups) + 2 * added**2) / (count + 2) ** 2
    seeds, raw, freedom = _seed_variance(first, second)
    variance = of_pictures + seeds
    degrees = degrees_of_freedom(freedom, variance, raw) if seeds else math.inf
    generator = np.random.default_rng(seed)
    edges = np.quantile(_resampled_means(each, groups, added, resamples, generator), (0.025, 0.975))
    # What the pictures make of it is widened by what the seeds add.
    wider = math.sqrt(variance / of_pictures) * float(student_t.ppf(0.975, degrees) / norm.ppf(0.975))
    low, high = center + wider * (edges - center)
    if fewer == 1 and ours == theirs and groups is None:
        p = mcnemar(first[0], second[0])[2]
    else:
        p = float(2 * student_t.sf(abs(center) / math.sqrt(variance), degrees))
    noise = _noise(first, second, of_pictures * (count + 2), seeds * fewer, deviations)
    mean = float(each.mean())
    is_of_nets = ours == theirs == 1
    low, high = float(low), float(high)
    return Difference(mean, low, high, p, only_first, only_second, noise, degrees, fewer, count, is_of_nets)


def _alone(first: Rights, second: Rights) -> float:
    """How many pictures the first group has right where the second has not, for one run of each."""
    return float((first.mean(0) * (1 - second.mean(0))).sum())


def _squares(values: NDArray[np.float64], groups: NDArray[np.int64] | None) -> float:
    """The sum of the squares of the groups' sums."""
    sums = values if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], values)
    return float((sums**2).sum())


def degrees_of_freedom(degrees: float, variance: float, raw: float) -> float:
    """Satterthwaite's degrees of freedom of a variance of which the part ``raw`` has ``degrees``."""
    return max(degrees, degrees * (variance / raw) ** 2)


def _seed_variance(first: Rights, second: Rights) -> tuple[float, float, int]:
    """The variance that the seeds bring to the difference beyond what the pictures explain.

    Returns:
        It, the whole variance of the seeds' accuracies, and the degrees of freedom of both.
    """
    several = [rights for rights in (first, second) if len(rights) > 1]
    degrees = sum(len(rights) - 1 for rights in several)
    if not several:
        return 0.0, 0.0, 0
    # A group of one run is taken to vary as the other one does.
    alone = sum(1 for rights in (first, second) if len(rights) == 1)
    weights = [1 / len(rights) + alone / len(several) for rights in several]
    raw = sum(w * float(rights.mean(1).var(ddof=1)) for w, rights in zip(weights, several, strict=True))
    expected = sum(w * _run_variance(rights) / rights.shape[1] for w, rights in zip(weights, several, strict=True))
    is_chance = raw <= expected or (expected > 0 and chi2.sf(degrees * raw / expected, degrees) > 0.5)
    return 0.0 if is_chance else raw - expected, raw, degrees


def _run_variance(rights: Rights) -> float:
    """The variance of a picture from run to run, on the mean over the pictures."""
    return float(rights.var(0, ddof=1).mean())


def _resampled_means(
    each: NDArray[np.float64],
    groups: NDArray[np.int64] | None,
    added: float,
    resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The mean differences of pictures, or of groups of them, that are drawn anew with replacement."""
    places = np.arange(len(each)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.append(np.bincount(places, each), (added, -added))
    sizes = np.append(np.bincount(places).astype(np.float64), (1.0, 1.0))
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    drawn = generator.multinomial(len(sums), counts / counts.sum(), resamples)
    return np.asarray((drawn @ kinds[0]) / (drawn @ kinds[1]))


def _noise(first: Rights, second: Rights, total: float, seeds: float, deviations: tuple[float, float] | None) -> Noise:
    """The parts of the variance of one picture's difference ``total``."""
    several = [_run_variance(rights) for rights in (first, second) if len(rights) > 1]
    if several:
        runs = 2 * sum(several) / len(several)
    else:
        runs = first.shape[1] * sum(one**2 for one in deviations) if deviations else 0.0
    fewer = min(len(first), len(second))
    runs = min(runs, total * fewer)
    return Noise(total - runs / fewer, runs, seeds)
