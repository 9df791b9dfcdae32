"""How a net is trained: the optimizer by name, its groups, the learning rate's course, and where a run goes on."""

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pet_cifar.errors import InputError, check_choice
from pet_cifar.training.freezing import Freezing
from pet_cifar.training.lr_schedule import Schedule, schedule_factor

OptimizerName = Literal["sgd", "adamw", "rmsprop"]
Groups = list[dict[str, Any]]
SIGNS = {"sgd": "nesterov", "adamw": "betas", "rmsprop": "alpha"}
"""An option that only this one has."""


def build_optimizer(
    name: OptimizerName, groups: Groups, lr: float, momentum: float, *, fused: bool
) -> torch.optim.Optimizer:
    """The optimizer over groups that may have a rate of their own.

    Args:
        name: ``sgd`` is Nesterov's.
        groups: parameters with their ``weight_decay`` and, perhaps, ``lr``; other keys are kept.
        lr: of groups without.
        momentum: of ``sgd`` and ``rmsprop``.
        fused: one pass over the memory instead of one for each operation; ``rmsprop`` has no such form.
    """
    # torch's own choice among the other forms is made where nothing is said
    form = True if fused else None
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr, momentum=momentum)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr, fused=form)
    optimizer = torch.optim.SGD(groups, lr, momentum, nesterov=momentum > 0, fused=form)
    if momentum > 0:
        # the fused form begins all buffers of a group at once, and fails where one is thawed later than another
        for parameter in (parameter for group in groups for parameter in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adopt_options(
    states: Iterable[dict[str, Any]], name: OptimizerName, groups: Groups, momentum: float, *, fused: bool
) -> None:
    """Puts this run's options into the optimizer states of a checkpoint, which would bring the old ones back.

    Args:
        states: of the checkpoint's optimizers; changed in place.
        name: of this run's optimizer.
        groups: of this run.
        momentum: of this run.
        fused: of this run.

    Raises:
        InputError: the checkpoint's optimizer is another, or trained other parameters.
    """
    for state in states:
        trained_with = next((kind for kind, key in SIGNS.items() if key in state["param_groups"][0]), name)
        if trained_with != name:
            raise InputError(
                f"the checkpoint was trained with the optimizer {trained_with}, whose state {name} cannot go on from; "
                f"give --model.optimizer {trained_with}, or start anew without --ckpt_path"
            )
        if [len(group["params"]) for group in state["param_groups"]] != [len(own["params"]) for own in groups]:
            raise InputError(
                "the checkpoint's optimizer trained other parameters than this net's would, or not all of them at one "
                "learning rate; go on with the options it was trained with, or start anew without --ckpt_path"
            )
        for group, own in zip(state["param_groups"], groups, strict=True):
            group["weight_decay"], group["lr_factor"] = own["weight_decay"], own["lr_factor"]
            if group.setdefault("initial_lr", own["lr"]) != own["lr"]:
                old = group["initial_lr"]
                group["lr"] = group["lr"] * (own["lr"] / old) if old else own["lr"]
                group["initial_lr"] = own["lr"]
            if "momentum" in group:
                group["momentum"] = momentum
            if "nesterov" in group:
                group["nesterov"] = momentum > 0
            if "fused" in group:
                group["fused"] = fused or None
            for number, parameter in zip(group["params"], own["params"], strict=True):
                kept = state["state"].setdefault(number, {})
                if "nesterov" in group and momentum > 0 and kept.get("momentum_buffer") is None:
                    kept["momentum_buffer"] = torch.zeros_like(parameter)
                for key, value in kept.items():
                    # the fused forms walk through the memory: it must be laid out as this run's weights are
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        kept[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


class OptimizedModule(LightningModule):
    """Optimizer and schedule, as the options say; for their meaning see `ImageClassifier`.

    Attributes:
        freezing: what of a pretrained backbone is not trained; None trains everything.
    """

    backbone: nn.Module

    def __init__(
        self,
        optimizer: OptimizerName,
        lr: float,
        momentum: float,
        weight_decay: float,
        schedule: Schedule,
        warmup_fraction: float,
        final_lr_factor: float | None,
    ) -> None:
        super().__init__()
        check_choice("optimizer", optimizer, get_args(OptimizerName))
        check_choice("schedule", schedule, get_args(Schedule))
        if not 0 <= lr < math.inf:
            raise InputError(f"lr is {lr}; it is a number, 0 or more")
        if not 0 <= weight_decay < math.inf:
            raise InputError(f"weight_decay is {weight_decay}; it is a number, 0 or more")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum}; it is from 0 up to below 1")
        if not 0 <= warmup_fraction < 1:
            raise InputError(f"warmup_fraction is {warmup_fraction}; it is a share of the run, from 0 up to below 1")
        if final_lr_factor is not None and not 0 <= final_lr_factor <= 1:
            raise InputError(f"final_lr_factor is {final_lr_factor}; it is a share of lr, from 0 to 1")
        if final_lr_factor is not None and schedule == "constant":
            raise InputError(f"final_lr_factor is {final_lr_factor}, but schedule constant never falls; leave one out")
        self.optimizer_name = optimizer
        self.lr = self._scheduled_lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_fraction = warmup_fraction
        self.final_lr_factor = final_lr_factor
        self.freezing: Freezing | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer by name over what is not frozen, and the schedule, stepped at every step."""
        groups = self._parameter_groups()
        optimizer = build_optimizer(self.optimizer_name, groups, self.lr, self.momentum, fused=self._fuses())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        self._scheduled_lr = self.lr
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _fuses(self) -> bool:
        trainer = self._trainer
        # Lightning cannot clip what a fused optimizer is about to unscale
        clips = trainer is not None and bool(trainer.gradient_clip_val)
        # where 16-mixed leaves a step out, its gradients being infinite, torch 2.11's fused SGD spoils the momentum
        scales = trainer is not None and getattr(trainer.precision_plugin, "scaler", None) is not None
        # a run that goes on asks before its net is moved
        device = self.device if trainer is None else trainer.strategy.root_device
        return device.type in ("cpu", "cuda") and not clips and not (scales and self.optimizer_name == "sgd")

    def follow_lr(self) -> None:
        """Hands a rate that a search has found on to the schedule, which has the old one."""
        schedule = self.lr_schedulers()
        if self.lr == self._scheduled_lr or not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            return
        # the search leaves all groups at the same rate; their factors come on top
        schedule.base_lrs = [self.lr * group["lr_factor"] for group in schedule.optimizer.param_groups]
        for group, lr in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["initial_lr"] = lr
            group["lr"] = lr * self._lr_factor(schedule.last_epoch)
        self._scheduled_lr = self.lr

    def _parameter_groups(self) -> Groups:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        base_factor, head_factor = self._part_factors()
        base = set(self.backbone.parameters()) if base_factor != head_factor else set()
        groups: Groups = []
        for factor, part in (
            (head_factor, [p for p in trained if p not in base]),
            (base_factor, [p for p in trained if p in base]),
        ):
            rate = {"lr": self.lr * factor, "lr_factor": factor}
            groups += [
                {"params": [p for p in part if p.ndim > 1], "weight_decay": self.weight_decay, **rate},
                {"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, **rate},
            ]
        return [group for group in groups if group["params"]]

    def _part_factors(self) -> tuple[float, float]:
        """What the backbone's and the head's learning rates are of ``lr``."""
        return self.freezing.base_lr_factor if self.freezing else 1.0, 1.0

    def _lr_factor(self, step: int) -> float:
        # at step 0 the trainer does not know its length yet, and no schedule needs it there
        total = self.total_steps() if step else 1.0
        if math.isinf(total):  # only the constant schedule gets here, and a share of nothing is no warm-up
            return 1.0
        progress = step / total
        return schedule_factor(self.schedule, progress, self.warmup_fraction, self.final_lr_factor)

    def total_steps(self) -> float:
        """Steps of the whole run; infinity where none is given."""
        # not trainer.estimated_stepping_batches: it sets up the loaders early and so breaks an exact resume
        # (https://github.com/Lightning-AI/pytorch-lightning/issues/20550)
        trainer = self.trainer
        steps = math.inf if trainer.max_steps < 0 else trainer.max_steps
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            steps = min(steps, trainer.max_epochs * an_epoch)
        if math.isinf(steps) and self.schedule != "constant":
            raise InputError(
                f"schedule {self.schedule} needs to know how long the run is: give --trainer.max_epochs or "
                "--trainer.max_steps, or the schedule constant"
            )
        return steps

    def adopt_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts this run's options into a checkpoint from which it goes on."""
        if self.freezing is not None:  # the learning rate's search goes on in the middle of an epoch
            self.freezing.free()
        groups = self._parameter_groups()
        states = checkpoint.get("optimizer_states", [])
        adopt_options(states, self.optimizer_name, groups, self.momentum, fused=self._fuses())
        for state in checkpoint.get("lr_schedulers", []):
            state["base_lrs"] = [group["lr"] for group in groups]
