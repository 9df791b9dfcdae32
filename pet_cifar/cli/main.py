"""The command line. It imports nothing heavy before it is needed, so that ``--help`` answers at once."""

import gc
import os
import sys
import time
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING

from pet_cifar import __version__
from pet_cifar.cli.first_look import DATA_COMMANDS, check_data_words, check_words
from pet_cifar.cli.interactive import is_interactive
from pet_cifar.cli.kept_help import is_kept, print_help
from pet_cifar.cli.plain_parser import split_words
from pet_cifar.cli.threads import OtherLoad, check_threads, share_cores
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.names import printable
from pet_cifar.runs.trusted import trusting

if TYPE_CHECKING:
    from lightning import Callback

    from pet_cifar.cli.trainer import PetCifarCLI

WHILE_STARTING = (100_000, 20, 100)
"""How many objects Python makes before it looks for garbage while a command starts. Imports make a million objects and
no garbage, and to look for it as often as usual took a fifth of their time."""
_usual = gc.get_threshold()

TRAINER_COMMANDS = {
    "fit": "train a net, and keep its best and last checkpoint",
    "validate": "score a checkpoint on the validation pictures",
    "test": "score a checkpoint on the test pictures, and write every prediction",
    "predict": "say what is in the pictures that are named, or write the probabilities of the test pictures",
}
COMMANDS = {
    **TRAINER_COMMANDS,
    "compare": "say which of some runs is better, with intervals, and what could mislead",
    "repeat": "train and test configs with several seeds, as far as the runs are missing, and compare them",
    "sweep": "search for the best values of options, and prove them on fresh seeds",
    "draw": "draw the pictures of a run as files: curves, confusion matrix, feature maps, filters, Grad-CAM",
    "exercise": "make the Keras exercise that this project grew from again, as one page",
    "export": "write a trained net as ONNX, as a torch program or as a web page, proved to answer as the run does",
    "board": "open TensorBoard on the newest runs, or on those that are named",
    "data": "check: list every picture; doctor: say what is wrong with them; prepare: only download and check",
}

HELP = f"""\
usage: pet-cifar COMMAND [OPTION ...]

Image classification experiments that show what the network sees.

commands:
{chr(10).join(f"  {name:<10}{text}" for name, text in COMMANDS.items())}

examples:
  pet-cifar fit --config digits_residual
  pet-cifar fit --config cifar10_residual --trainer.max_epochs 10 --model.lr 0.05
  pet-cifar test --run lightning_logs/digits_residual
  pet-cifar repeat --config cifar10_plain cifar10_residual --seeds 3 --budget 1h
  pet-cifar fit --config cats_dogs_cnn --print_model
  pet-cifar predict --run lightning_logs/cats_dogs_cnn photos --output photos.csv
  pet-cifar compare lightning_logs/cifar10_plain lightning_logs/cifar10_residual --output report.html
  pet-cifar draw --run lightning_logs/cats_dogs_cnn --images photo.jpg
  pet-cifar exercise --mode quick
  pet-cifar export --run lightning_logs/cats_dogs_cnn --format onnx
  pet-cifar board lightning_logs/digits_residual
  pet-cifar data check --data CatsDogsDataModule --data.root data

more:
  pet-cifar COMMAND --help             all options of a command
  pet-cifar fit --model.help CLASS     all options of a net, such as ResidualCNN
  pet-cifar fit --data.help CLASS      all options of a data module, such as CIFAR10DataModule
  pet-cifar --version
"""


def main(args: Sequence[str] | None = None, *, callbacks: "Sequence[Callback]" = ()) -> "PetCifarCLI | None":
    """Runs one command, from the shell or from Python.

    Args:
        args: The command and its options; None takes those of the shell.
        callbacks: Lightning callbacks that a run has after the default ones, for programs such as notebooks.

    Returns:
        The LightningCLI with its ``trainer``, ``model`` and ``datamodule`` for the Trainer's verbs, else None.

    Raises:
        InputError: An input was wrong, in a notebook or at Python's prompt, which SystemExit would end or confuse.
        SystemExit: Elsewhere an input was wrong, which one line on standard error tells; the status is 2. It is 1
            where ``predict`` could not read a picture, or where the loss of a run was not finite.
    """
    began = time.monotonic()
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return None
    if words[0] == "--version":
        print(f"pet-cifar {__version__}")
        return None
    try:
        return _run(words, callbacks, began)
    except InputError as error:
        if is_interactive():
            raise
        # A word of it may come from a stranger's file, and must not steer the terminal.
        line = f"pet-cifar: error: {printable(str(error))}"
        print(line, file=sys.stderr)
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun has started this process.
            from pet_cifar.cli.rank_failure import note_for_torchrun

            note_for_torchrun(line)
        raise SystemExit(error.status) from error
    except SystemExit:  # Help was asked for, or pictures could not be read, which is told already.
        if is_interactive():
            return None
        raise


def _run(words: Sequence[str], callbacks: "Sequence[Callback]", began: float) -> "PetCifarCLI | None":
    share_cores()
    command, *options = words
    # A trusted module is only one that the user has typed, whatever a file says.
    modules, options = split_words(options, "--trust")
    with trusting(modules):
        return _run_command(command, options, words, callbacks, began)


def _run_command(
    command: str, options: list[str], words: Sequence[str], callbacks: "Sequence[Callback]", began: float
) -> "PetCifarCLI | None":
    if command not in COMMANDS:
        if command in DATA_COMMANDS:
            raise InputError(f"there is no command {command}; did you mean data {command}?")
        raise InputError(f"there is no command {command}{did_you_mean(command, COMMANDS)}; see pet-cifar --help")
    if command == "data":
        check_data_words(options)
        from pet_cifar.cli.data import run_data

        run_data(options)
        return None
    if command == "board":
        from pet_cifar.cli.tensorboard import run_board

        run_board(options)
        return None
    if command == "predict":
        from pet_cifar.cli.predict import run_predict, takes_pictures

        if takes_pictures(options):
            _end(run_predict(options))
            return None
    if command == "compare":
        from pet_cifar.cli.compare import run_compare

        _end(run_compare(options))
        return None
    if command == "exercise":
        from pet_cifar.cli.exercise import run_exercise

        _end(run_exercise(options))
        return None
    if command == "export":
        from pet_cifar.cli.export import run_export

        run_export(options)
        return None
    if command == "repeat":
        from pet_cifar.cli.repeat import run_repeat

        _end(run_repeat(options))
        return None
    if command == "sweep":
        from pet_cifar.cli.sweep import run_sweep

        _end(run_sweep(options))
        return None
    if command == "draw":
        from pet_cifar.cli.draw import run_draw

        _end(run_draw(options))
        return None
    check_words(command, options)
    check_threads(options)
    if is_kept(words):
        print_help(words, lambda: _run_trainer(words, callbacks, began))
        return None
    return _run_trainer(words, callbacks, began)


def _run_trainer(words: Sequence[str], callbacks: "Sequence[Callback]", began: float) -> "PetCifarCLI":
    # What others do is watched while torch is imported, which takes seconds.
    load = OtherLoad()
    from pet_cifar.cli.found_runs import begun_before_requeue
    from pet_cifar.cli.trainer import run_trainer

    if gc.get_threshold() == WHILE_STARTING:
        # What is imported stays, so that nothing looks through it again.
        gc.freeze()
        gc.set_threshold(*_usual)
    return run_trainer(words, callbacks, began, load=load, own=begun_before_requeue(words))


def _end(status: int) -> None:
    """Ends the program where a command that has told its user so did only a part of its work."""
    if status:
        raise SystemExit(status)


def run_from_shell() -> None:
    """Runs `main` and drops what it returns, which a console script would make its exit status."""
    gc.set_threshold(*WHILE_STARTING)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter of a file's name shows an escape in its place.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The program that reads the output has ended, as head does. The rest goes nowhere, also at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    # It comes while torch is imported or pictures are checked; a Trainer has its own way.
    except KeyboardInterrupt:
        print("pet-cifar: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        gc.set_threshold(*_usual)
        # Libraries that count their objects at the end would miss those that nothing looks through.
        gc.unfreeze()
