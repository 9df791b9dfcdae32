"""The option ``--run`` of the commands that use a trained net, and the net that it names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError, check_local
from pet_cifar.runs.directory import find_checkpoint
from pet_cifar.runs.trusted import HELP

if TYPE_CHECKING:
    from pet_cifar.data import ImageDataModule
    from pet_cifar.runs.load import Classifier


def add_run_option(parser: PlainParser, *, required: bool = True) -> None:
    """Adds ``--run``."""
    parser.add_argument(
        "--run",
        required=required,
        help="A run directory, the directory of an experiment (its newest version), or a checkpoint.",
    )
    parser.add_argument("--trust", metavar="MODULE", help=HELP)


def load_run(run: str, device: str | None = None, *, option: str = "--run") -> "Classifier":
    """Loads a trained net.

    Args:
        run: The value of the option.
        device: Where the net goes; None takes a GPU where there is one.
        option: The name of the option.

    Raises:
        InputError: There is no such run or device, or the run cannot be loaded.
    """
    check_run(run, option)
    # This import takes seconds, and --help and a run that is not there are answered without it.
    from pet_cifar.runs.load import load

    if device is not None:
        import torch

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch has no such device, or was built without it.
            raise InputError(f"--device {device}: there is no such device here; give cpu, or cuda for a GPU") from error
    try:
        return load(run, device)
    except InputError as error:
        raise _named(error, run, option) from error


def check_run(run: str, option: str = "--run") -> None:
    """Refuses a run that is not there, before anything is imported that takes seconds.

    Args:
        run: The value of the option.
        option: The name of the option.

    Raises:
        InputError: There is no such run, or it has no checkpoint.
    """
    check_local(option, run)
    try:
        find_checkpoint(run)
    except InputError as error:
        raise _named(error, run, option) from error


def _named(error: InputError, run: str, option: str) -> InputError:
    """The error with the option that the user has given."""
    text = str(error).removeprefix("--run ")
    return InputError(f"{option} {text}" if text.startswith(run) else text)


def add_root_option(parser: PlainParser) -> None:
    """Adds ``--data.root``."""
    parser.add_argument("--data.root", dest="root", metavar="DIR", help="Where the run's data is now.")


def data_of_run(checkpoint: Mapping[str, Any], root: str | None) -> "ImageDataModule":
    """The data module of a run, set up for training.

    Args:
        checkpoint: What the run's checkpoint holds; it says which data the run had.
        root: Where the data is now; None where it was.

    Raises:
        InputError: The checkpoint does not say, or the data is not there or is other data.
    """
    from pet_cifar.cli.configs import config_of_checkpoint
    from pet_cifar.cli.data import data_module
    from pet_cifar.data.files.download import without_downloads

    source = "the config in the run's checkpoint"
    data = config_of_checkpoint(checkpoint, "test", source).get("data")
    if not data:
        raise InputError("the run does not say what it was trained on")
    with without_downloads():
        found = data_module(data, source, ["--data.root", root] if root else [])
        found.prepare_data()
        found.setup("fit")
    found.refuse_other_data(checkpoint)
    return found
