"""The learning rate's course over a run."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.optim.lr_scheduler import LambdaLR

from pet_cifar.errors import InputError, check_choice
from pet_cifar.training.budget import time_budget

ScheduleName = Literal["one_cycle", "cosine", "triangle", "constant"]
FINAL: dict[ScheduleName, float] = {"one_cycle": 1e-4, "cosine": 0.0, "triangle": 0.07, "constant": 1.0}
"""The share of the highest rate at which each schedule ends, unless told otherwise."""


@dataclass(frozen=True)
class LRSchedule:
    """The share of the highest learning rate at each point of a run.

    Args:
        name: The schedule's name; `ImageClassifier` tells what each does and where it comes from.
        warmup_fraction: The share of the run in which the rate rises.
        final_lr_factor: The share at which the run ends; None takes the schedule's own.

    Raises:
        InputError: A value is out of its range.
    """

    name: ScheduleName
    warmup_fraction: float
    final_lr_factor: float | None = None

    def __post_init__(self) -> None:
        check_choice("schedule", self.name, get_args(ScheduleName))
        if not 0 <= self.warmup_fraction < 1:
            raise InputError(
                f"warmup_fraction is {self.warmup_fraction}; it is a share of the run, from 0 up to below 1"
            )
        final = self.final_lr_factor
        if final is not None and not 0 <= final <= 1:
            raise InputError(f"final_lr_factor is {final}; it is a share of lr, from 0 to 1")
        if final is not None and self.name == "constant":
            raise InputError(f"final_lr_factor is {final}, but schedule constant never falls; leave one out")

    def factor(self, progress: float) -> float:
        """The share of the highest rate after a share ``progress`` of the run, both in [0, 1]."""
        if progress < self.warmup_fraction:
            rise = progress / self.warmup_fraction
            if self.name == "triangle":
                return 0.2 + 0.8 * rise
            return 1 - 0.96 * _half_cosine(rise) if self.name == "one_cycle" else rise
        fall = min(1.0, (progress - self.warmup_fraction) / (1 - self.warmup_fraction))
        lowest = FINAL[self.name] if self.final_lr_factor is None else self.final_lr_factor
        return lowest + (1 - lowest) * (1 - fall if self.name == "triangle" else _half_cosine(fall))


def total_steps(trainer: Trainer, schedule: LRSchedule, epoch: int = 0, step: int = 0) -> float:
    """The optimizer's steps in the whole run; infinity where the run has no end, or only a `TimeBudget` ends it.

    Args:
        trainer: The trainer, which knows the batches of an epoch by now.
        schedule: The schedule, which may need an end.
        epoch: An epoch that has begun, counted from 0. Before it a run that goes on may have had other options.
        step: How many steps were made before this epoch.

    Raises:
        InputError: The schedule falls towards an end that the run does not have.
    """
    # This is not trainer.estimated_stepping_batches, which sets up the loaders early and so breaks an exact resume
    # (https://github.com/Lightning-AI/pytorch-lightning/issues/20550).
    steps = math.inf if trainer.max_steps < 0 else trainer.max_steps
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        steps = min(steps, step + _steps_of_epochs(trainer, epoch, trainer.max_epochs))
    if math.isinf(steps) and schedule.name != "constant" and time_budget(trainer) is None:
        raise InputError(
            f"schedule {schedule.name} needs to know how long the run is: give --trainer.max_epochs, "
            "--trainer.max_steps or --budget, or --model.schedule constant"
        )
    return steps


def _steps_of_epochs(trainer: Trainer, start: int, stop: int) -> int:
    """The optimizer's steps from one epoch up to another, whatever changes the batches that a step accumulates."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    planned = next((one for one in callbacks if isinstance(one, GradientAccumulationScheduler)), None)
    changes = [epoch for epoch in planned.epochs if start < epoch < stop] if planned else []
    steps = 0
    for first, last in pairwise([start, *changes, max(start, stop)]):
        batches = planned.get_accumulate_grad_batches(first) if planned else trainer.accumulate_grad_batches
        steps += math.ceil(trainer.num_training_batches / batches) * (last - first)
    return steps


def change_highest_lr(scheduler: LambdaLR, lr: float) -> None:
    """Hands another highest rate on to a schedule that has begun; each group takes its ``lr_factor`` of it.

    Args:
        scheduler: The schedule of an optimizer whose groups have an ``lr_factor``.
        lr: The highest rate.
    """
    scheduler.base_lrs = [lr * group["lr_factor"] for group in scheduler.optimizer.param_groups]
    parts = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, highest, factor in parts:
        group["initial_lr"] = highest
        group["lr"] = highest * factor(scheduler.last_epoch)


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
