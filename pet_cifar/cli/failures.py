"""What to tell of an error that came up while a verb ran, after all parts were built."""

import re
import traceback
from collections.abc import Mapping
from errno import EDQUOT, EFBIG, ENOSPC
from math import ceil

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from pet_cifar.cli.constructors import name_option
from pet_cifar.cli.options import options_of_class
from pet_cifar.errors import InputError
from pet_cifar.names import printable

NO_MEMORY = "there is not enough memory for a step"
"""How the line about it begins, by which it is known from the line of another process as well."""


def refusal_of_run(error: Exception, parts: Mapping[str, object]) -> InputError | None:
    """What to tell of an error that came up after all classes were built; None where it is no wrong option.

    Args:
        error: The error.
        parts: The net and the data module by the options that chose them, and the Trainer.
    """
    words = " ".join(str(error).split())
    if isinstance(error, InputError):
        for option, part in parts.items():
            cls: type = type(part)
            named = name_option(option, cls, words)
            if named != words:
                return InputError(named)
        return error
    if _reads_checkpoint(error):
        trainer = parts["trainer"]
        file = trainer.ckpt_path if isinstance(trainer, Trainer) else None
        if isinstance(error, MisconfigurationException) and (done := re.search(r"current_epoch=(\d+)", words)):
            return InputError(
                f"--trainer.max_epochs {getattr(trainer, 'max_epochs', None)}: the run in {file} has made {done[1]} "
                "epochs already; give more than these"
            )
        return InputError(
            f"--ckpt_path {file} cannot be gone on with ({type(error).__name__}: {words}): a part of it has another "
            "shape than a run gives it; give a checkpoint that a run of this version has written"
        )
    if _is_out_of_memory(error, words):
        return InputError(f"{NO_MEMORY}; give a smaller --data.batch_size or a smaller --data.image_size")
    if isinstance(error, OSError) and error.filename is None and error.errno in (ENOSPC, EDQUOT, EFBIG):
        return InputError(f"{error.strerror}; make room, or put runs elsewhere: --trainer.default_root_dir DIR")
    if isinstance(error, OSError) and error.filename is not None:
        return InputError(
            f"{printable(str(error.filename))}: {error.strerror}; check that it is there, that there is room and that "
            "you may write to it, or put runs elsewhere: --trainer.default_root_dir DIR"
        )
    # Whether a value is logged is known before training, unless a class of the user's may log it.
    if found := re.match(r"Early stopping conditioned on metric `(.+?)` which is not available", words):
        return InputError(f"--trainer.callbacks.monitor {found[1]}: the run has logged no such value")
    if not isinstance(error, ValueError | MisconfigurationException):
        return None
    if line := _limit(words) or _interval(words):
        return InputError(line)
    # Lightning puts the name of its argument at the beginning, in backticks.
    found = re.match(r"`(?:Trainer\()?(\w+)", words)
    if found and found[1] in options_of_class(Trainer):
        return InputError(f"--trainer.{found[1]}: {words}")
    return InputError(words) if isinstance(error, MisconfigurationException) else None


def _reads_checkpoint(error: Exception) -> bool:
    """Whether the error came up while Lightning gave the parts of a checkpoint to those that they belong to."""
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(code.co_filename.endswith("checkpoint_connector.py") and "restore" in code.co_name for code in frames)


def _is_out_of_memory(error: Exception, words: str) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On the CPU torch has no error of its own for it.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in words


def _limit(words: str) -> str | None:
    """The line about a share of the batches that comes to none."""
    found = re.match(r"You requested to check (\S+) of the `(\w+?)_dataloader` but \S+ \* (\d+) < 1", words)
    if found is None:
        return None
    share, stage, batches = found[1], found[2], int(found[3])
    return (
        f"--trainer.limit_{stage}_batches {share}: there are {batches} batches, of which this is none; give a share of "
        f"at least {ceil(1000 / batches) / 1000}, or a number of batches such as 1"
    )


def _interval(words: str) -> str | None:
    """The line about more steps between two validations than an epoch has."""
    found = re.match(r"`val_check_interval` \((\d+)\) must be less .*? training batches \((\d+)\)", words)
    if found is None:
        return None
    return (
        f"--trainer.val_check_interval {found[1]}: an epoch has {found[2]} batches; give at most {found[2]}, or also "
        "--trainer.check_val_every_n_epoch null, which counts batches over all epochs"
    )
