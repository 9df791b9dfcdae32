"""What all trials share: their outcomes, the runs that nothing stops, and a folder for each trial."""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pet_cifar.cli.main import run_from_shell
from tests.cli.kills import Apart, begin
from tests.cli.ranks import SPREAD
from tests.runs.killed_runs import (
    FIT,
    LAST,
    NAME,
    PREVIOUS,
    RESUME,
    RUN,
    WAYS,
    differences,
    draw_and_save_at_every_epoch,
    nothing,
    save_at_every_step,
)

OFTEN = ("validations",)
"""The ways of training in which a checkpoint is saved at every step."""


@dataclass
class Outcome:
    """What came of a trial.

    Attributes:
        times: How often the damage was done.
        lost: What was lost; empty where nothing was.
        notes: What has happened beside it, and how often.
    """

    times: int = 1
    lost: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """A run that nothing has stopped.

    Attributes:
        run: Its directory.
        seconds: The seconds of a processor that it took.
    """

    run: Path
    seconds: float


Wholes = dict[str, Whole]
Trial = Callable[[random.Random, Wholes], Outcome]


def words(way: str) -> list[str]:
    """The words of a fit, without the name of the program."""
    return [*FIT, *(WAYS[way] if way in WAYS else [*WAYS["epochs"], *SPREAD])]


def before(way: str) -> Callable[[], None]:
    """What a fit of this way begins with."""

    return save_at_every_step if way in OFTEN else nothing


def command(args: Sequence[str], prepare: Callable[[], None] = nothing, output: Path | None = None) -> Apart:
    """Begins a command in a fork, as the shell runs it."""

    def work() -> None:
        draw_and_save_at_every_epoch()
        prepare()
        sys.argv = ["pet-cifar", *args]
        run_from_shell()

    return begin(work, output or Path(f"output_{len(list(Path().glob('output_*')))}.txt"))


def made_whole(way: str, folder: Path, begin_fit: Callable[[Sequence[str]], Sequence[Apart]]) -> Whole:
    """Makes the run of a way without stopping it, in one process or several."""
    with within(folder / way, keep=True):
        started = os.times()
        children = begin_fit(words(way))
        for status, said in [child.wait() for child in children]:
            assert status == 0, said
        ended = os.times()
        used = ended.children_user + ended.children_system - started.children_user - started.children_system
        return Whole(RUN.absolute(), used / len(children))


@contextmanager
def within(folder: Path, *, keep: bool = False) -> Iterator[None]:
    """Works in a new folder, which is removed afterwards."""
    home = Path.cwd()
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(home)
        if not keep:
            shutil.rmtree(folder)


def go_on(way: str, whole: Whole, outcome: Outcome, resume: Callable[[Sequence[str]], Sequence[Apart]]) -> None:
    """Goes on with the run that lies here, or begins anew where no checkpoint was there yet, and compares it.

    Args:
        way: The way of training.
        whole: The run that nothing has stopped.
        outcome: Takes what is lost.
        resume: Begins a command, in one process or several.
    """
    run = RUN
    has_begun = LAST.exists() or PREVIOUS.exists()
    if not has_begun:
        note(outcome, "before the first checkpoint")
        run = NAME / f"version_{len(list(NAME.glob('version_*')))}"
    # No checkpoint says how many processes a run has.
    again = [*RESUME, *(SPREAD if way == "ranks" else ())]
    for status, said in [one.wait() for one in resume(again if has_begun else words(way))]:
        if status != 0:
            outcome.lost.append(f"going on ended with {status}: {said[-1500:]}")
    if not outcome.lost:
        outcome.lost += differences(run, whole.run)


def note(outcome: Outcome, what: str) -> None:
    """Counts what has happened beside the damage."""
    outcome.notes[what] = outcome.notes.get(what, 0) + 1


def refusal(said: str) -> str | None:
    """What is wrong with how a command has ended that could not go on; None where one line says what is wrong."""
    lines = [line for line in said.splitlines() if line.startswith("pet-cifar: error: ")]
    if "Traceback" in said or len(lines) != 1:
        return f"no single line says what is wrong: {said[-1500:]}"
    return None
