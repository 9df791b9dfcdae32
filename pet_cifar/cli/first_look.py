"""What of a command can be refused before torch is imported, which takes seconds."""

from collections.abc import Sequence
from pathlib import Path

from pet_cifar.cli.config_files import find_config
from pet_cifar.cli.plain_parser import asks_for_help, split_words
from pet_cifar.errors import InputError, check_local, did_you_mean
from pet_cifar.runs.directory import best_checkpoint, check_file, check_resumed, find_run

DATA_COMMANDS = ("check", "doctor", "prepare")


def check_data_words(args: Sequence[str]) -> None:
    """Refuses a command of ``pet-cifar data`` that does not exist, and configs that are not there.

    Args:
        args: The command and its options.

    Raises:
        InputError: One of them is wrong.
    """
    command = args[0] if args else ""
    if command not in (*DATA_COMMANDS, "-h", "--help"):
        near = did_you_mean(command, DATA_COMMANDS)
        raise InputError(
            f"data {command}: there is no such command{near}; give one of data {', data '.join(DATA_COMMANDS)}"
        )
    if len(args) > 1 and not args[1].startswith("-") and Path(args[1]).exists():
        raise InputError(
            f"data {command} {args[1]}: a folder of pictures is given as --data ImageFolderDataModule --data.root "
            f"{args[1]}"
        )
    for name in split_words(args[1:], "-c", "--config")[0]:
        find_config(name)


def check_words(verb: str, words: Sequence[str]) -> None:
    """Refuses files and directories that are not there, and verbs that miss their net.

    Args:
        verb: The Trainer's verb.
        words: Its options.

    Raises:
        InputError: One of them is wrong.
    """
    configs, words = split_words(words, "-c", "--config")
    for name in configs:
        find_config(name)
    if asks_for_help(words):
        return
    runs, words = split_words(words, "--run")
    paths, _ = split_words(words, "--ckpt_path")
    resumed, _ = split_words(words, "--resume")
    if runs and verb == "fit":
        raise InputError(
            "--run: fit makes a run of its own; to go on with one, give --resume RUN_DIR, or, in a new directory, "
            "--ckpt_path RUN_DIR/checkpoints/last.ckpt"
        )
    if verb == "fit" and resumed and not paths:
        check_resumed(resumed[-1])
    if runs:
        best_checkpoint(find_run(runs[-1]))
    elif paths and paths[-1] and not resumed:  # Both together are refused where the run goes on.
        check_local("--ckpt_path", paths[-1])
        check_file(Path(paths[-1]))
    elif verb != "fit" and not configs and not resumed:  # A config may name a checkpoint.
        refuse_missing_net(verb)


def refuse_missing_net(verb: str) -> None:
    """Refuses a verb that is given no trained net.

    Raises:
        InputError: It always is.
    """
    raise InputError(
        f"{verb} needs a trained net: give --run RUN_DIR, such as lightning_logs/digits_residual, or --ckpt_path FILE"
    )
