"""The option ``--run`` of the commands that use a trained net, and the net that it names."""

from typing import TYPE_CHECKING

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError

if TYPE_CHECKING:
    from pet_cifar.runs.load import Classifier


def add_run_option(parser: PlainParser, *, required: bool = True) -> None:
    """Adds ``--run``."""
    parser.add_argument("--run", required=required, help="The run directory, a directory of runs, or a checkpoint.")


def load_run(run: str, device: str | None = None, *, option: str = "--run") -> "Classifier":
    """Loads a trained net.

    Args:
        run: The value of the option.
        device: Where the net goes; None takes a GPU where there is one.
        option: The name of the option.

    Raises:
        InputError: There is no such run or device, or the run cannot be loaded.
    """
    # This import takes seconds, and --help answers without it.
    from pet_cifar.runs.load import load

    try:
        return load(run, device)
    except InputError as error:
        raise InputError(f"{option} {error}" if str(error).startswith(run) else str(error)) from error
    except (RuntimeError, AssertionError) as error:  # torch has no such device, or was built without it.
        raise InputError(f"--device {device}: there is no such device here; give cpu, or cuda for a GPU") from error
