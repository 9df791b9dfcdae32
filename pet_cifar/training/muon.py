"""Muon: momentum whose step is made orthogonal, for the filters of convolutions.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024, kellerjordan.github.io/posts/muon), with
the settings that Jordan's airbench94 has for CIFAR-10. Written anew from the published facts, because torch.optim.Muon
takes matrices alone.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Those of the odd polynomial of degree 5 that pushes singular values towards 1."""
ITERATIONS = 3
FILTER_MOMENTUM = 0.6


class Muon(Optimizer):
    """Makes the steps of filters orthogonal, and those of all other parameters by SGD with Nesterov's momentum.

    The filters of a convolution, of shape (out, in, height, width), count as a matrix of shape (out, in * height *
    width). Its gradient with Nesterov's momentum is replaced by a matrix with the same singular vectors, whose singular
    values are all about 1, so that rare directions are learned as fast as common ones. Before each step the filters are
    scaled to a norm of sqrt(out), which changes nothing where batch normalization follows, and makes the learning
    rate the relative size of a step.

    Args:
        groups: The parameters with their ``lr`` and ``weight_decay``. Those of a group whose ``orthogonal`` is true are
            filters, which have no weight decay, because they are scaled; see `with_filters_apart`.
        lr: The learning rate of groups that have none.
        momentum: The momentum of what are no filters; filters have `FILTER_MOMENTUM`, unless their group has its own.
        bfloat16: Whether steps are made orthogonal in bfloat16 on a processor as well, as on a GPU.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, *, bfloat16: bool = False) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "orthogonal": False})
        self._bfloat16 = bfloat16

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Makes a step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
            buffers = [self._buffer(parameter) for parameter in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            steps = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
            if group["orthogonal"]:
                for parameter in parameters:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp_min(1e-7))
                steps = tuple(self._orthogonal_filters(one) for one in steps)
            torch._foreach_add_(parameters, steps, alpha=-group["lr"])
        return loss

    def _orthogonal_filters(self, step: Tensor) -> Tensor:
        return orthogonal(step.flatten(1), bfloat16=self._bfloat16).view(step.shape).to(step.dtype)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def with_filters_apart(groups: list[dict[str, Any]], filter_lr_factor: float) -> list[dict[str, Any]]:
    """Divides groups of parameters for `Muon`: each into what are filters and what are not.

    Args:
        groups: The parameters with their ``lr``, ``lr_factor`` and ``weight_decay``.
        filter_lr_factor: The share of a group's learning rate that its filters learn at.
    """
    divided = []
    for group in groups:
        filters = [parameter for parameter in group["params"] if parameter.ndim == 4]
        others = [parameter for parameter in group["params"] if parameter.ndim != 4]
        rates = {key: group[key] * filter_lr_factor for key in ("lr", "lr_factor")}
        own = {"weight_decay": 0.0, "momentum": FILTER_MOMENTUM, "orthogonal": True}
        divided += [{**group, "params": others}, {**group, **rates, **own, "params": filters}]
    return [group for group in divided if group["params"]]


def orthogonal(matrix: Tensor, *, bfloat16: bool = False) -> Tensor:
    """A matrix with the same singular vectors whose singular values are between about 0.6 and 1.2.

    It is made by three steps of the Newton-Schulz iteration. Directions whose singular value is less than a hundredth
    of the matrix' norm stay smaller.

    Args:
        matrix: Shape (rows, columns).
        bfloat16: Whether it is made in bfloat16 on a processor as well.

    Returns:
        Shape (rows, columns): bfloat16 on a GPU and where it was asked for, else float32.
    """
    first, third, fifth = COEFFICIENTS
    found: Tensor = matrix.to(torch.bfloat16 if matrix.is_cuda or bfloat16 else torch.float32)
    if is_tall := matrix.shape[0] > matrix.shape[1]:
        found = found.T
    found = found / (found.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = found @ found.T
        found = first * found + (third * square + fifth * square @ square) @ found
    return found.T if is_tall else found
