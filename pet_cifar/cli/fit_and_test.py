"""The option ``--test`` of ``fit``: a test of the best checkpoint in the process that has trained it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.cli import configs, sweep_trial
from pet_cifar.errors import InputError
from pet_cifar.runs.continuation import is_finished

HELP = (
    "Test the best checkpoint when training is over, as pet-cifar test --run does, without starting Python and torch "
    "anew; a --budget does not count it."
)


def add_test_option(parser: LightningArgumentParser) -> None:
    """Adds ``--test``."""
    parser.add_argument("--test", action="store_true", help=HELP)


def check_can_test(trainer: Trainer, *, has_directory: bool) -> None:
    """Refuses what would leave nothing to test, before anything is trained.

    Args:
        trainer: The trainer of the fit.
        has_directory: Whether the run has a directory of its own.

    Raises:
        InputError: The run keeps no checkpoint, has several processes, or is a trial of a sweep.
    """
    if sweep_trial.trial_callbacks():
        raise InputError("--test: validation chooses the winner of a sweep, and its trials see no test; leave it out")
    if trainer.world_size > 1:
        raise InputError(
            f"--test: the run has {trainer.world_size} processes, of which one would have to test; leave it out, and "
            "give pet-cifar test --run afterwards"
        )
    keeps = any(isinstance(one, ModelCheckpoint) for one in trainer.checkpoint_callbacks)
    if trainer.fast_dev_run or not has_directory or not keeps:  # type: ignore[attr-defined]
        raise InputError(
            "--test: this run keeps no checkpoint to test; leave it out, or leave out --trainer.fast_dev_run, "
            "--trainer.logger, --trainer.barebones and --trainer.enable_checkpointing"
        )


def is_left(words: Sequence[str], own: Path) -> bool:
    """Whether a command whose SLURM job was requeued has trained its run, and has not tested it as it was asked to.

    Args:
        words: The verb and its options, as they were typed.
        own: The run that the command has begun.
    """
    return "--test" in words and is_finished(own) and not (own / "test" / "metrics.json").is_file()


def words_of_test(run: Path, trainer: Mapping[str, Any]) -> list[str]:
    """The command that tests a run which has just been trained, on the devices that trained it.

    Args:
        run: The run directory.
        trainer: The trainer's part of its config.
    """
    return ["test", "--run", str(run), *configs.words_of_processes(trainer)]
