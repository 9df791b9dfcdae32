"""The optimizer by name, its parameter groups, and the state that a run goes on from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from pet_cifar.errors import InputError, check_choice, check_positive
from pet_cifar.training.muon import Muon, with_filters_apart

OptimizerName = Literal["sgd", "adamw", "rmsprop", "muon"]
Groups = list[dict[str, Any]]
"""The optimizer's parameter groups: each has ``params``, ``lr``, ``lr_factor`` (the group's share of the net's
learning rate) and ``weight_decay``."""
SIGNS = {"sgd": "nesterov", "adamw": "betas", "rmsprop": "alpha", "muon": "orthogonal"}
"""An option that only this optimizer has, by which the state of a checkpoint is told apart."""


@dataclass(frozen=True)
class OptimizerOptions:
    """What the optimizer is, apart from its learning rate, which a search may change.

    Args:
        name: ``sgd`` (with Nesterov's momentum), ``adamw``, ``rmsprop`` or ``muon``.
        momentum: The momentum of ``sgd`` and ``rmsprop``, and of what are no filters under ``muon``.
        weight_decay: The weight decay of weights; biases and norms are spared.
        filter_lr_factor: The share of the learning rate that the filters of convolutions learn at under ``muon``.

    Raises:
        InputError: A value is out of its range.
    """

    name: OptimizerName
    momentum: float
    weight_decay: float
    filter_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.name, get_args(OptimizerName))
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; it is a number, 0 or more")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; it is from 0 up to below 1")
        check_positive("filter_lr_factor", self.filter_lr_factor)
        if self.filter_lr_factor != 1 and self.name != "muon":
            raise InputError(
                f"filter_lr_factor is {self.filter_lr_factor}, which the optimizer {self.name} has no use for; give "
                "optimizer muon, or leave it out"
            )

    def arranged(self, groups: Groups) -> Groups:
        """The groups of a net's parameters as this optimizer wants them."""
        return with_filters_apart(groups, self.filter_lr_factor) if self.name == "muon" else groups


def decay_groups(parts: Iterable[tuple[float, Sequence[nn.Parameter]]], lr: float, weight_decay: float) -> Groups:
    """Groups of trained parameters; weight decay spares biases and norms, which have one dimension.

    Args:
        parts: The parts of a net, each with its share of the learning rate.
        lr: The learning rate of the net.
        weight_decay: The weight decay of weights.
    """
    groups: Groups = []
    for factor, parameters in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        rate = {"lr": lr * factor, "lr_factor": factor}
        groups += [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, **rate},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, **rate},
        ]
    return [group for group in groups if group["params"]]


def can_fuse(name: OptimizerName, trainer: Trainer | None, device: torch.device) -> bool:
    """Whether the optimizer can make its step in one pass over the memory.

    Args:
        name: The optimizer's name.
        trainer: The trainer; None where a net asks that has none.
        device: The device of a net without a trainer.
    """
    if trainer is not None:
        # A run that goes on asks before its net is moved.
        device = trainer.strategy.root_device
    # Lightning cannot clip gradients that a fused optimizer is about to unscale.
    clips = trainer is not None and bool(trainer.gradient_clip_val)
    # 16-mixed leaves out a step whose gradients are infinite; torch 2.11's fused SGD then spoils the momentum.
    scales = trainer is not None and getattr(trainer.precision_plugin, "scaler", None) is not None
    # torch 2.15's fused SGD does not know the parameters of a net that is divided among processes.
    divides = trainer is not None and trainer.strategy.restore_checkpoint_after_setup
    return device.type in ("cpu", "cuda") and not clips and not ((scales or divides) and name == "sgd")


def is_in_bfloat16(trainer: Trainer | None) -> bool:
    """Whether a trainer multiplies matrices in bfloat16, so that an optimizer may do so as well."""
    return trainer is not None and str(trainer.precision).startswith("bf16")


def build_optimizer(
    name: OptimizerName, groups: Groups, lr: float, momentum: float, *, fused: bool, bfloat16: bool = False
) -> torch.optim.Optimizer:
    """Builds the optimizer over groups that may have learning rates of their own.

    Args:
        name: The optimizer's name; ``sgd`` has Nesterov's momentum.
        groups: The parameters with their ``weight_decay`` and, perhaps, ``lr``; other keys are kept. They are arranged
            for the optimizer; see `OptimizerOptions.arranged`.
        lr: The learning rate of groups that have none.
        momentum: The momentum of ``sgd`` and ``rmsprop``, and of what are no filters under ``muon``.
        fused: Makes a step in one pass over the memory instead of one pass for each operation; ``rmsprop`` and
            ``muon`` have no such form.
        bfloat16: Whether ``muon`` multiplies its matrices in bfloat16.
    """
    # With None torch chooses among its other forms.
    form = True if fused else None
    if name == "muon":
        return Muon(groups, lr, momentum, bfloat16=bfloat16)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr, momentum=momentum)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr, fused=form)
    optimizer = torch.optim.SGD(groups, lr, momentum, nesterov=momentum > 0, fused=form)
    if momentum > 0:
        # The fused form creates all buffers of a group at once, and fails where one parameter is unfrozen later.
        for parameter in (parameter for group in groups for parameter in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adopt_options(checkpoint: dict[str, Any], options: OptimizerOptions, groups: Groups, *, fused: bool) -> None:
    """Puts this run's options into the optimizer's state in a checkpoint, which would bring the old ones back.

    Args:
        checkpoint: The checkpoint, whose states of optimizers and schedules are changed in place.
        options: The options of this run's optimizer.
        groups: The parameter groups of this run.
        fused: Whether this run's optimizer is fused.

    Raises:
        InputError: The checkpoint's optimizer is another one, or trained other parameters.
    """
    name, momentum = options.name, options.momentum
    for schedule in checkpoint.get("lr_schedulers", []):
        schedule["base_lrs"] = [group["lr"] for group in groups]
    for state in checkpoint.get("optimizer_states", []):
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
                group["momentum"] = own.get("momentum", momentum)
            if "nesterov" in group:
                group["nesterov"] = momentum > 0
            if "fused" in group:
                group["fused"] = fused or None
            for number, parameter in zip(group["params"], own["params"], strict=True):
                kept = state["state"].setdefault(number, {})
                if "nesterov" in group and momentum > 0 and kept.get("momentum_buffer") is None:
                    kept["momentum_buffer"] = torch.zeros_like(parameter)
                for key, value in kept.items():
                    # The fused forms walk through the memory, so it must be laid out as this run's weights are.
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        kept[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def learning_rate(optimizer: Optimizer) -> float:
    """The run's learning rate, which is that of the parameters whose factor is 1."""
    groups = optimizer.param_groups
    return float(next((group for group in groups if group.get("lr_factor") == 1), groups[0])["lr"])
