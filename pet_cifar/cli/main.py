"""The command line. Nothing heavy is imported before it is needed: ``--help`` answers at once."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pet_cifar import __version__
from pet_cifar.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pet_cifar.cli.trainer import PetCifarCLI

TRAINER_COMMANDS = {
    "fit": "train a net, and keep its best and last checkpoint",
    "validate": "score a checkpoint on the validation pictures",
    "test": "score a checkpoint on the test pictures, and write every prediction",
    "predict": "write the probabilities of the test pictures",
}
COMMANDS = {
    **TRAINER_COMMANDS,
    "board": "open TensorBoard on the newest runs, or on those that are named",
    "data": "check: list every picture with a verdict; prepare: only download and check",
}

HELP = f"""\
usage: pet-cifar COMMAND [OPTION ...]

Image classification experiments that show what the network sees.

commands:
{chr(10).join(f"  {name:<10}{text}" for name, text in COMMANDS.items())}

examples:
  pet-cifar fit --config configs/digits_residual.yaml
  pet-cifar fit --config configs/cifar10_residual.yaml --trainer.max_epochs 10 --model.lr 0.05
  pet-cifar test --run lightning_logs/digits_residual
  pet-cifar fit --config configs/cats_dogs_cnn.yaml --print_model
  pet-cifar board lightning_logs/digits_residual
  pet-cifar data check --data CatsDogsDataModule --data.root data

more:
  pet-cifar COMMAND --help             all options of a command
  pet-cifar fit --model.help CLASS     all options of a net, such as ResidualCNN
  pet-cifar fit --data.help CLASS      all options of a data module, such as CIFAR10DataModule
  pet-cifar --version
"""


def main(args: Sequence[str] | None = None) -> "PetCifarCLI | None":
    """Runs one command, from the shell or from Python.

    Args:
        args: the command and its options; null takes the shell's.

    Returns:
        For the Trainer's verbs the LightningCLI, with its ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: with status 2 after a wrong input, which is told in one line on standard error.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return None
    if args[0] == "--version":
        print(f"pet-cifar {__version__}")
        return None
    try:
        if args[0] == "data":
            from pet_cifar.cli.data import run_data

            run_data(args[1:])
            return None
        if args[0] == "board":
            from pet_cifar.cli.tensorboard import run_board

            run_board(args[1:])
            return None
        if args[0] not in COMMANDS:
            raise InputError(f"there is no command {args[0]}{did_you_mean(args[0], COMMANDS)}; see pet-cifar --help")
        from pet_cifar.cli.trainer import run_trainer

        return run_trainer(args)
    except InputError as error:
        print(f"pet-cifar: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def run_from_shell() -> None:
    """Runs `main`; what a console script returns would become its exit status."""
    try:
        main()
    except KeyboardInterrupt:  # while torch is imported, or pictures are checked; a Trainer has its own way
        print("pet-cifar: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
