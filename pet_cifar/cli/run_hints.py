"""What a run is told beside its results: that an option makes it faster or slower, or that a figure says less."""

from collections.abc import Iterator

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.scored import name_of_results
from pet_cifar.errors import InputError
from pet_cifar.hardware import gains_from_bfloat16
from pet_cifar.training.budget import time_budget
from pet_cifar.training.ridge import wilson_interval


def before_run(*, on_cpu: bool, compiles: bool, precision: str, chosen: bool) -> Iterator[str]:
    """Lines on what the options cost.

    Args:
        on_cpu: Whether the run has no GPU.
        compiles: Whether the net is compiled.
        precision: The precision of the run.
        chosen: Whether the user has named the precision.
    """
    if on_cpu and compiles:
        yield "compiling the net, for which the first steps wait; --model.compile false begins at once"
    if on_cpu and precision == "32-true" and not chosen and gains_from_bfloat16():
        yield "this processor computes faster in bfloat16: --trainer.precision bf16-mixed, which rounds more"
    if on_cpu and precision.startswith("bf16") and gains_from_bfloat16() is False:
        yield f"this processor gains nothing from bfloat16: --trainer.precision 32-true is faster than {precision}"


def on_batch_norm(net: nn.Module, processes: int, *, on_cpu: bool, is_synced: bool) -> Iterator[str]:
    """A line where batch normalization makes several processes train otherwise than one would.

    Args:
        net: The net.
        processes: The number of processes.
        on_cpu: Whether the run has no GPU.
        is_synced: Whether ``--trainer.sync_batchnorm`` is set.

    Raises:
        InputError: It is set on a processor, for which torch has no such layer.
    """
    has_norm = any(isinstance(layer, _BatchNorm) for layer in net.modules())
    if is_synced and on_cpu and has_norm and processes > 1:
        raise InputError(
            "--trainer.sync_batchnorm true needs GPUs, since torch exchanges the statistics of a batch on them alone; "
            "leave it out"
        )
    if processes > 1 and has_norm and not is_synced:
        otherwise = "" if on_cpu else "; --trainer.sync_batchnorm true takes them over all"
        yield (
            f"batch normalization takes its statistics from the pictures of each of the {processes} processes alone, "
            f"so that this run differs from one of a single process{otherwise}"
        )


def nothing_left(trainer: Trainer) -> str:
    """The line about a run that goes on from its end."""
    if (budget := time_budget(trainer)) is not None and budget.is_over:
        return "nothing was left to train: give a longer --budget to go on"
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    timer = next((one for one in callbacks if isinstance(one, Timer)), None)
    seconds = timer.time_remaining() if timer else None
    if seconds is not None and seconds <= 0:
        option = "max_time"
    elif 0 <= trainer.max_steps <= trainer.global_step:
        option = "max_steps"
    else:
        option = "max_epochs"
    return f"nothing was left to train: raise --trainer.{option} to go on"


def after_run(trainer: Trainer) -> Iterator[str]:
    """A line where a limit left pictures out of the last scores."""
    if trainer.fast_dev_run or trainer.overfit_batches:  # type: ignore[attr-defined]
        return
    split = "test" if trainer.state.fn == "test" else "val"
    loader = trainer.test_dataloaders if split == "test" else trainer.val_dataloaders
    scored = sum(trainer.num_test_batches if split == "test" else trainer.num_val_batches)
    if loader is not None and f"{split}/acc" in trainer.callback_metrics and scored < len(loader):
        yield (
            f"{split}/acc is of the first {scored} of {len(loader)} batches, which may hold one class alone; without "
            f"--trainer.limit_{split}_batches it is of all"
        )


def accuracy_of_test(trainer: Trainer) -> str:
    """The accuracy of a test with its 95 % interval, since that of few pictures says little."""
    share = trainer.callback_metrics["test/acc"].item()
    data = image_data_of(trainer)
    if data is None or "_batches" in name_of_results(trainer, "test"):
        return f"{100 * share:.2f} %"
    count = len(data.splits["test"])
    low, high = wilson_interval(round(share * count), count)
    return f"{100 * share:.2f} % of {count:,} pictures, 95 % interval {100 * low:.2f} to {100 * high:.2f} %"
