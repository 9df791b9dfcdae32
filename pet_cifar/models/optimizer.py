"""The optimiser by name, and its options where a run goes on with others."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from pet_cifar.errors import InputError

OptimizerName = Literal["sgd", "adamw", "rmsprop"]
Groups = list[dict[str, Any]]


def build_optimizer(
    name: OptimizerName, groups: Groups, lr: float, momentum: float, *, fused: bool
) -> torch.optim.Optimizer:
    """The optimiser over groups that may have a rate of their own.

    Args:
        name: ``sgd`` is Nesterov's.
        groups: parameters with their ``weight_decay`` and, perhaps, ``lr``.
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


def adopt_options(states: Iterable[dict[str, Any]], groups: Groups, momentum: float, *, fused: bool) -> None:
    """Puts this run's options into the optimiser states of a checkpoint, which would bring the old ones back.

    Args:
        states: of the checkpoint's optimisers; changed in place.
        groups: of this run.
        momentum: of this run.
        fused: of this run.

    Raises:
        InputError: the checkpoint's optimiser trained other parameters.
    """
    for state in states:
        if [len(group["params"]) for group in state["param_groups"]] != [len(own["params"]) for own in groups]:
            raise InputError(
                "the checkpoint's optimizer trained other parameters than this net's would; go on with the options "
                "it was trained with, or start anew without --ckpt_path"
            )
        for group, own in zip(state["param_groups"], groups, strict=True):
            group["weight_decay"] = own["weight_decay"]
            if group.setdefault("initial_lr", own["lr"]) != own["lr"]:
                group["lr"] *= own["lr"] / group["initial_lr"]
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
                for name, value in kept.items():
                    # the fused forms walk through the memory: it must be laid out as this run's weights are
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        kept[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
