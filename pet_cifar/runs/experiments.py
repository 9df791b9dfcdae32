"""The runs of one experiment, which differ by their seeds alone, and what they say together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet_cifar.runs import forecast, statistics
from pet_cifar.runs.statistics import Interval
from pet_cifar.runs.tested_run import TestedRun
from pet_cifar.training.ridge import accuracy_interval, wilson_interval

MOST = 1e18


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, which differ by their seeds.

    Attributes:
        name: The name that tells it from the others of the comparison.
        runs: Its runs, in the order of their seeds.
    """

    name: str
    runs: tuple[TestedRun, ...]

    @cached_property
    def rights(self) -> NDArray[np.bool_]:
        """Whether each run has each test picture right, shape (runs, pictures)."""
        return np.stack([run.right[run.rows_in_order_of(self.runs[0])] for run in self.runs])

    @cached_property
    def accuracy(self) -> Interval:
        """The mean test accuracy; the interval is over the seeds, or over the pictures where there is one run."""
        if len(self.runs) == 1:
            return self.interval_of_pictures
        return statistics.mean_of_seeds([run.accuracy for run in self.runs])

    @cached_property
    def interval_of_pictures(self) -> Interval:
        """The mean accuracy, with an interval over the test pictures alone, or over groups of them where there are any.

        It is Wilson's; see `accuracy_interval` for groups, of which the first run tells how much they differ.
        """
        mean, count = float(self.rights.mean()), self.rights.shape[1]
        if (groups := self.runs[0].groups) is None:
            return Interval(mean, *wilson_interval(mean * count, count))
        low, high = accuracy_interval(self.rights[0], groups)
        first = float(self.rights[0].mean())
        return Interval(mean, max(0.0, low + mean - first), min(1.0, high + mean - first))

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the accuracies between the seeds; None for one run."""
        return float(np.std([run.accuracy for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    @cached_property
    def forecast_deviation(self) -> float:
        """The standard deviation between seeds that is to be expected; see `forecast.deviation_between_seeds`."""
        return median(forecast.deviation_between_seeds(run.probabilities, run.right) for run in self.runs)

    def mean(self, value: Callable[[TestedRun], float | None]) -> float | None:
        """The mean of a value of the runs; None where no run has it."""
        # A number of hundreds of digits, which JSON may hold, is none that a run has written.
        found = [one for one in map(value, self.runs) if isinstance(one, int | float) and abs(one) < MOST]
        known = [float(one) for one in found if math.isfinite(one)]
        return sum(known) / len(known) if known else None

    def recorded(self, *keys: str) -> float | None:
        """The mean of a number in the runs' records, by its keys from the outside in."""
        return self.mean(lambda run: _number(run.record, keys))

    @property
    def noise(self) -> str:
        """Which noise its interval counts."""
        return "seeds" if len(self.runs) > 1 else "test pictures"


def _number(record: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    is_number = isinstance(record, int | float) and not isinstance(record, bool)
    return float(record) if is_number and abs(record) < MOST else None
