"""Makes the exercise: looks for what is at hand, makes the runs that are missing, and writes the page."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pet_cifar.runs.exercise import at_hand, page
from pet_cifar.runs.exercise.carry_out import Execute, in_a_process, make_all
from pet_cifar.runs.exercise.plan import Mode, runs_of
from pet_cifar.runs.exercise.sections import Exercise


def make(
    mode: Mode,
    *,
    root: str | None,
    weights: str | None,
    folder: Path,
    output: Path,
    configs: Mapping[str, Path],
    command: str,
    say: Callable[[str], None],
    execute: Execute = in_a_process,
) -> list[str]:
    """Makes the exercise.

    Args:
        mode: How long each net is trained.
        root: The data's folder; None takes the usual one.
        weights: VGG16's weights; see `at_hand.find`.
        folder: Where the runs go.
        output: The page.
        configs: The files of the configs by name.
        command: The command that makes the page again.
        say: Tells the user how far it is.
        execute: Runs a command of ``pet-cifar``.

    Returns:
        A line for each thing that the page lacks.

    Raises:
        InputError: The weights that are named are none, or a file cannot be written.
    """
    say("looking for the pictures and for VGG16's weights; what is missing is downloaded where there is a network")
    found = at_hand.find(root, weights)
    for line in found.missing.values():
        say(f"not at hand: {line}")
    planned = runs_of(mode, str(found.root), found.weights, found.per_class, str(folder))
    planned = [one for one in planned if not found.lacks(one.item)]
    made = list(make_all(planned, folder, execute, say=say))
    say("drawing the page")
    exercise = Exercise(mode, found, made, configs)
    page.write(exercise, output, command)
    return list(dict.fromkeys(exercise.missing))
