"""The learning rate's course over a run."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lightning import Trainer

from pet_cifar.errors import InputError, check_choice

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


def total_steps(trainer: Trainer, schedule: LRSchedule) -> float:
    """The optimizer's steps in the whole run; infinity where the run has no end.

    Raises:
        InputError: The schedule falls towards an end that the run does not have.
    """
    # This is not trainer.estimated_stepping_batches, which sets up the loaders early and so breaks an exact resume
    # (https://github.com/Lightning-AI/pytorch-lightning/issues/20550).
    steps = math.inf if trainer.max_steps < 0 else trainer.max_steps
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        steps_an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps = min(steps, trainer.max_epochs * steps_an_epoch)
    if math.isinf(steps) and schedule.name != "constant":
        raise InputError(
            f"schedule {schedule.name} needs to know how long the run is: give --trainer.max_epochs or "
            "--trainer.max_steps, or --model.schedule constant"
        )
    return steps


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
