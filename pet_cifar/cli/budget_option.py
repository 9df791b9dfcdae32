"""The option ``--budget`` of ``fit``: the time that a run may take, in place of its epochs."""

from collections.abc import Sequence
from typing import Any

from lightning import Callback
from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.cli.plain_parser import split_words
from pet_cifar.durations import described, seconds_of
from pet_cifar.errors import InputError
from pet_cifar.training.budget import TimeBudget

_OTHER_ENDS = {"max_epochs": -1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None}
"""The Trainer's options that say how long a run is, each with the value that says nothing."""


def add_budget_option(parser: LightningArgumentParser) -> None:
    """Adds ``--budget``."""
    parser.add_argument(
        "--budget",
        type=str | None,
        help="The time that fit may take from its start to its end, such as 90s, 10min or 1h30min; it takes the place "
        "of the config's epochs, and the learning rate's schedule is fitted to it.",
    )


def budget_of(typed: Sequence[str], text: str | None, began: float | None) -> list[Callback]:
    """The callback that keeps a run to its budget; none where it has none.

    Args:
        typed: The verb and its options as the user gave them.
        text: The value of ``--budget``.
        began: The reading of ``time.monotonic`` when the command began.

    Raises:
        InputError: The value is no length of time, or another verb is given one.
    """
    verb, *words = typed
    if verb != "fit" and split_words(words, "--budget")[0]:
        raise InputError(f"--budget {text}: {verb} has no budget; it is an option of fit, leave it out")
    if verb != "fit" or text is None:
        return []
    return [TimeBudget(seconds_of("--budget", text), began)]


def without_other_ends(typed: Sequence[str]) -> dict[str, Any]:
    """The Trainer's options that a budget replaces, unless they were typed beside it; then the nearer end counts.

    Args:
        typed: The verb and its options as the user gave them.
    """
    return {name: value for name, value in _OTHER_ENDS.items() if not split_words(typed[1:], f"--trainer.{name}")[0]}


def outcome(budget: TimeBudget, steps: int) -> str:
    """The line about a run that has ended."""
    percentage = 100 * budget.spent / budget.seconds
    return (
        f"took {described(budget.spent)} of its budget of {described(budget.seconds)} ({percentage:.1f} %), "
        f"{steps:,} steps"
    )
