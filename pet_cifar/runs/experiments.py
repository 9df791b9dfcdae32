"""The runs of one experiment, which differ by their seeds alone, and what they say together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet_cifar.runs import statistics
from pet_cifar.runs.statistics import Interval
from pet_cifar.runs.tested_run import TestedRun
from pet_cifar.training.ridge import wilson_interval


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
        return np.stack([run.right[rows_of(run, self.runs[0])] for run in self.runs])

    @cached_property
    def accuracy(self) -> Interval:
        """The mean test accuracy; the interval is over the seeds, or over the pictures where there is one run."""
        if len(self.runs) == 1:
            return statistics.accuracy_of_pictures(self.rights[0])
        return statistics.mean_of_seeds([run.accuracy for run in self.runs])

    @cached_property
    def interval_of_pictures(self) -> Interval:
        """The mean accuracy, with Wilson's interval over the test pictures."""
        count = self.rights.shape[1]
        return Interval(self.accuracy.value, *wilson_interval(self.accuracy.value * count, count))

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the accuracies between the seeds; None for one run."""
        return float(np.std([run.accuracy for run in self.runs], ddof=1)) if len(self.runs) > 1 else None

    @cached_property
    def forecast_deviation(self) -> float:
        """The standard deviation between seeds that is to be expected; see `statistics.deviation_between_seeds`."""
        return median(statistics.deviation_between_seeds(run.probabilities, run.right) for run in self.runs)

    def mean(self, value: Callable[[TestedRun], float | None]) -> float | None:
        """The mean of a value of the runs; None where no run has it."""
        found = [one for one in map(value, self.runs) if isinstance(one, int | float)]
        known = [one for one in found if math.isfinite(one)]
        return sum(known) / len(known) if known else None

    def recorded(self, *keys: str) -> float | None:
        """The mean of a number in the runs' records, by its keys from the outside in."""
        return self.mean(lambda run: _number(run.record, keys))

    @property
    def noise(self) -> str:
        """Which noise its interval counts."""
        return "seeds" if len(self.runs) > 1 else "test pictures"


def rows_of(run: TestedRun, order: TestedRun) -> NDArray[np.int64]:
    """The rows of a run's pictures in the order of another run, which may have been tested in another layout."""
    if run.paths == order.paths:
        return np.arange(len(run.paths))
    place = {path: row for row, path in enumerate(run.paths)}
    return np.array([place[path] for path in order.paths], np.int64)


def _number(record: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return float(record) if isinstance(record, int | float) and not isinstance(record, bool) else None
