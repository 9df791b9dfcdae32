"""The batch size of a run that goes on on more or fewer processes, so that a step has as many pictures as before."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback, Trainer

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli.plain_parser import split_words
from pet_cifar.cli.run_options import RunOptions
from pet_cifar.cli.save_config import SaveConfig
from pet_cifar.data import ImageDataModule
from pet_cifar.errors import InputError

OPTIONS = ("--data.batch_size", "--data.init_args.batch_size")


def keep_pictures_a_step(asked: RunOptions, data: ImageDataModule, trainer: Trainer) -> str | None:
    """Lets a run that goes on on more or fewer processes take as many pictures a step as before.

    Args:
        asked: What the run is asked for.
        data: Its pictures, whose batch size is changed.
        trainer: Has the processes, and the callback that keeps the config.

    Returns:
        The line that tells of it; None where nothing is changed.

    Raises:
        InputError: The pictures of a step cannot be shared evenly.
    """
    before, now, old = asked.processes, trainer.world_size, data.batch_size
    if not asked.goes_on or not isinstance(before, int) or before in (0, now) or is_chosen(asked.typed, asked.files):
        return None
    new = data.batch_size = kept_batch_size(old, before, now)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for one in callbacks:
        if isinstance(one, SaveConfig):
            one.config["data"]["init_args"]["batch_size"] = new
    count = f"{now} processes" if now > 1 else "one process"
    return (
        f"overridden: --data.batch_size {old} -> {new}, since the run goes on on {count} instead of {before}, and "
        f"takes {old * before} pictures a step as before"
    )


def is_chosen(typed: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the user has named a batch size, beside the one that the checkpoint brings.

    Args:
        typed: The words of the command.
        configs: The config files.
    """
    named = any("data.init_args.batch_size" in dict(flatten(config)) for config in configs)
    return named or bool(split_words(typed, *OPTIONS)[0])


def kept_batch_size(batch_size: int, before: int, now: int) -> int:
    """The batch size of each process with which a step has as many pictures as before.

    Args:
        batch_size: The batch size of each process before.
        before: The number of processes before.
        now: The number of processes.

    Raises:
        InputError: The pictures of a step cannot be shared evenly.
    """
    step = batch_size * before
    if step % now:
        raise InputError(
            f"--data.batch_size: the run took {step} pictures a step ({before} x {batch_size}), which {now} processes "
            "cannot share evenly; give the number for each process, or another --trainer.devices"
        )
    return step // now
