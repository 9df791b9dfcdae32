"""What came of the runs of the exercise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_cifar.errors import InputError
from pet_cifar.runs.exercise.plan import Planned
from pet_cifar.runs.tested_run import TestedRun, read_run

MakeRuns = Callable[[Sequence[Planned]], Sequence[Path | str]]
"""Makes the runs that are missing, and gives for each its directory, or why there is none."""


@dataclass(frozen=True)
class Made:
    """What came of a planned run.

    Attributes:
        planned: The plan of it.
        run: The run with its test; None where there is none.
        problem: Why there is no run; empty where there is one.
    """

    planned: Planned
    run: TestedRun | None = None
    problem: str = ""


def read_made(planned: Sequence[Planned], results: Sequence[Path | str]) -> list[Made]:
    """Reads the runs that were made; one that cannot be read stops none of the others.

    Args:
        planned: The runs.
        results: The directory of each, or why there is none.
    """
    return [_read(one, result) for one, result in zip(planned, results, strict=True)]


def _read(one: Planned, result: Path | str) -> Made:
    if isinstance(result, str):
        return Made(one, problem=result)
    try:
        run = read_run(result)
        assert run.curves is not None, "they are read here, since a table of metrics may be damaged, too"
        return Made(one, run)
    except InputError as error:
        return Made(one, problem=f"{error}; remove {result} to have it made again")
