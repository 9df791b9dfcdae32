"""Ends a run whose loss is no finite number, or leaves the step out, and names the step and its pictures."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.tuner.lr_finder import _LRCallback
from torch import Tensor

from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.errors import NotFiniteError
from pet_cifar.names import listed
from pet_cifar.training.optimizer import learning_rate

log = logging.getLogger(__name__)

OnNan = Literal["stop", "skip"]
SKIP = "--model.on_nan skip"
"""The option that leaves such steps out; the error about a loss that is not finite names it."""
CHECK_EVERY = 50
"""The number of steps after which the losses of a GPU are copied to the host."""
READ_AT_ONCE = ("cpu",)
"""The devices whose numbers Python reads without waiting."""
NAMED = 32
"""The largest number of files that are named."""
TOLD = 5
"""How many steps that are left out are told of one by one, before they are only counted."""
LEFT_OUT_IN_A_ROW = 20
"""After how many steps in a row that are left out a run ends, since nothing is learned any more."""


@dataclass(slots=True)
class _Step:
    """What is told of a step whose loss is not finite."""

    number: int
    epoch: int
    rate: float
    row: Tensor | None
    loss: Tensor


class LossWatch:
    """Looks at the training loss of every step, and names the first one that is not finite.

    On the CPU a loss is looked at before it is learned from. On a GPU that would wait for the device at every step.
    There the losses of `CHECK_EVERY` steps are copied to the host together, and read once the copy has arrived; `check`
    waits for those that are left, and is called before anything of the net is kept. With ``skip`` every step is looked
    at before it is learned from, and a GPU waits.

    Args:
        on_nan: ``stop`` ends the run with an error; ``skip`` leaves the step out, and says so.
    """

    def __init__(self, on_nan: OnNan) -> None:
        self.on_nan = on_nan
        self._steps: list[_Step] = []
        self._copied: tuple[list[_Step], Tensor, Callable[[], bool]] | None = None
        self._left_out = self._in_a_row = self._learned = self._untold = 0

    def accepts(self, module: LightningModule, loss: Tensor, batch: Batch | FeatureBatch) -> bool:
        """Whether the net may learn from a loss.

        Args:
            module: The net, in training.
            loss: The loss of the batch.
            batch: The batch; its ``row`` names the pictures where it comes from a loader of this package.

        Returns:
            False where the step is to be left out, which all processes agree on.

        Raises:
            NotFiniteError: The loss of this step, or of an earlier one on a GPU, is not finite; or too many steps in a
                row are to be left out.
        """
        if module._trainer is None:  # A program makes the step by itself, and sees its loss.
            return True
        trainer = module.trainer
        on_cpu = module.device.type in READ_AT_ONCE
        alone = self.on_nan == "stop" or trainer.world_size == 1
        if on_cpu and alone and math.isfinite(loss.item()):
            self._count_learned()
            return True
        rate = learning_rate(trainer.optimizers[0])
        row = batch.row if image_data_of(trainer) is not None else None
        step = _Step(trainer.global_step, trainer.current_epoch, rate, row, loss.detach())
        if self._searches(trainer):
            return True
        if self.on_nan == "skip":
            return self._agree_to_learn(module, step)
        self._steps.append(step)
        if on_cpu:
            self.check(module)
        else:
            self._check_what_has_arrived(module)
        return True

    def _searches(self, trainer: Trainer) -> bool:
        """Whether the rate is being searched for, which ends with an exploding loss."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        return any(isinstance(one, _LRCallback) for one in callbacks)

    def _agree_to_learn(self, module: LightningModule, step: _Step) -> bool:
        finite = bool(step.loss.isfinite())
        if module.trainer.strategy.reduce_boolean_decision(finite):
            self._count_learned()
            return True
        self._left_out += 1
        self._in_a_row += 1
        if self._in_a_row >= LEFT_OUT_IN_A_ROW:
            raise NotFiniteError(
                f"{SKIP} has left out {self._in_a_row} steps in a row, so that nothing is learned any "
                f"more: {_describe(module, step)}; give a smaller --model.lr or a longer warmup"
            )
        if self._left_out <= TOLD:
            if not finite:  # Of several processes the one tells whose pictures they are.
                log.warning("%s; the step is left out", _describe(module, step))
        else:
            self._untold += 1
        return False

    def _count_learned(self) -> None:
        self._learned += 1
        self._in_a_row = 0

    def end_epoch(self, module: LightningModule) -> bool:
        """Tells how many more steps of an epoch were left out.

        Returns:
            Whether the net has learned from a step of the epoch, so that there is something to log.
        """
        if self._untold:
            log.warning("%d more steps of epoch %d are left out", self._untold, module.trainer.current_epoch)
        has_learned = self.on_nan == "stop" or self._learned > 0
        self._learned = self._untold = 0
        return has_learned

    def _check_what_has_arrived(self, module: LightningModule) -> None:
        if self._copied is not None and self._copied[2]():
            steps, losses, _ = self._copied
            self._copied = None
            self._refuse(module, steps, losses)
        if self._copied is None and len(self._steps) >= CHECK_EVERY:
            self._copied = (self._steps, *_copy(torch.stack([step.loss for step in self._steps])))
            self._steps = []

    def check(self, module: LightningModule) -> None:
        """Looks at all losses so far, and waits for them.

        Raises:
            NotFiniteError: One is not finite.
        """
        copied, steps = self._copied, self._steps
        self._copied, self._steps = None, []
        steps = [*(copied[0] if copied else ()), *steps]
        if steps:
            self._refuse(module, steps, torch.stack([step.loss for step in steps]).cpu())

    def _refuse(self, module: LightningModule, steps: list[_Step], losses: Tensor) -> None:
        if losses.isfinite().all():
            return
        for step, loss in zip(steps, losses, strict=True):
            if not loss.isfinite():
                raise NotFiniteError(
                    f"{_describe(module, step)}; give a smaller --model.lr or a longer warmup, look at these files, "
                    f"or leave such steps out with {SKIP}"
                )


def _copy(losses: Tensor) -> tuple[Tensor, Callable[[], bool]]:
    """A copy on the host, and whether it has arrived; a GPU is not waited for."""
    if losses.device.type != "cuda":
        return losses.cpu(), lambda: True
    host = torch.empty(losses.shape, dtype=losses.dtype, pin_memory=True)
    host.copy_(losses, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return host, arrived.query


def _describe(module: LightningModule, step: _Step) -> str:
    data = image_data_of(module.trainer)
    files = ""
    if data is not None and step.row is not None:
        records = data.splits["train"]
        files = f", of the files {listed([records[row].path for row in step.row.tolist()], NAMED)}"
    return (
        f"the training loss is {step.loss.item()} at step {step.number} (epoch {step.epoch}), at a learning rate of "
        f"{step.rate:.6g}{files}"
    )
