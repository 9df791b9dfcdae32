"""What a run is told before it begins: that an option makes it faster or slower, or another than it would be alone."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pet_cifar.errors import InputError
from pet_cifar.hardware import gains_from_bfloat16


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


def on_cores(processes: int, available: int) -> Iterator[str]:
    """A line where processes on a processor share its cores.

    Args:
        processes: The number of processes on this machine.
        available: The number of cores that they may use.
    """
    if processes > available:
        yield (
            f"{processes} processes share {available} cores and wait for each other; --trainer.devices {available} "
            "gives each a core of its own"
        )


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
