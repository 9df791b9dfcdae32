"""Makes the exercise: looks for what is at hand, makes the runs that are missing, and writes the page."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pet_cifar.runs.exercise import at_hand, page
from pet_cifar.runs.exercise.made import MakeRuns, read_made
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
    make_runs: MakeRuns,
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
        make_runs: Makes the runs that are missing.

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
    made = read_made(planned, make_runs(planned))
    say("drawing the page")
    exercise = Exercise(mode, found, made, configs)
    page.write(exercise, output, command)
    return list(dict.fromkeys(exercise.missing))
