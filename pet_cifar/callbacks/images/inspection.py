"""What a net makes of a few pictures, looked at without a trace."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import Split

Item = TypeVar("Item")


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; modes, gradients, hooks and every random state are as before afterwards.

    A compiled net is run uncompiled: its graphs know nothing of hooks.
    """
    modes = {layer: layer.training for layer in module.modules()}
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # a backward would add to the very tensor
    hooks = {layer: [set(own) for own in _hooks(layer)] for layer in modes}
    try:
        with _same_random_states(module), torch.no_grad(), _uncompiled():
            module.eval()
            yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
            for kept, now in zip(hooks[layer], _hooks(layer), strict=True):
                for key in now.keys() - kept:
                    del now[key]
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _hooks(layer: nn.Module) -> tuple[dict[int, Any], ...]:
    return layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks


@contextmanager
def _same_random_states(module: nn.Module) -> Iterator[None]:
    # Lightning's isolate_rng forgets to restore them after an exception
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"}
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _uncompiled() -> AbstractContextManager[object]:
    # importing the compiler takes seconds, and who has not imported it has compiled nothing
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def balanced_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` rows (or all), as many of each class as of every other, chosen by the seed alone; shape (count,)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turn[own] = np.arange(len(own))
    # the first of every class, then the second of every class, and so on
    chosen = np.lexsort((labels, turn))[:count]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def take(data: ImageDataModule, split: Split, rows: NDArray[np.int64]) -> Tensor:
    """Pictures of these rows: uint8 on the CPU, shape (n, C, H, W)."""
    return data.pixels(split).take(rows).cpu()


def as_input(module: nn.Module, image: Tensor) -> Tensor:
    """uint8 pictures as ``module`` takes them: floats in [0, 1] of its type, on its device."""
    parameter = next(module.parameters())
    return (image.to(parameter.device).float() / 255).to(parameter.dtype)


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """All 2-D convolutions by name, in the order in which they were built."""
    return {clean(name): layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}


def clean(name: str) -> str:
    """A layer's name without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "").removesuffix("._orig_mod")


def named_layers(module: nn.Module) -> dict[str, nn.Module]:
    """All parts of the net by name; metrics are none."""
    layers = {clean(name): layer for name, layer in module.named_modules() if name}
    return {name: layer for name, layer in layers.items() if "_metrics" not in name.partition(".")[0]}


def layers_like(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The layers whose names match a pattern such as ``backbone.*``.

    Raises:
        KeyError: a pattern that matches none.
    """
    layers = {name: layer for name, layer in named_layers(module).items() if not list(layer.children())}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {name: layer for name, layer in layers.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise KeyError(pattern)
        found |= matching
    return {name: layer for name, layer in layers.items() if name in found}


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` items, the first, the last and between them at equal distances."""
    places = np.linspace(0, max(0, len(items) - 1), min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


@contextmanager
def outputs_of(
    layers: Mapping[str, nn.Module], keep: Callable[[str, Tensor], Tensor]
) -> Iterator[dict[str, list[Tensor]]]:
    """Collects ``keep(name, output)`` of each layer, one for each time that it runs within the block."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def remember(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(layer: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                return
            # at once: an in-place ReLU may follow
            found[name].append(keep(name, output.detach()))

        return hook

    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def normalized_maps(output: Tensor, most: int, side: int) -> Tensor:
    """Feature maps as the homework shows them: each minus its mean, over its standard deviation, x 64 + 128, clipped.

    Args:
        output: of a layer, shape (B, C, H, W).
        most: channels to keep, spread over all of them.
        side: maps that are larger are then reduced to it, by the mean over areas.

    Returns:
        uint8 on the CPU, shape (B, min(C, most), h, w); a constant map is gray, what is not a number black.
    """
    chosen = spread(range(output.shape[1]), most)
    maps = output[:, chosen].float()
    mean = maps.mean((2, 3), keepdim=True)
    deviation = ((maps - mean) ** 2).mean((2, 3), keepdim=True).sqrt()
    # rounding makes a little deviation of a constant map
    still = deviation <= 1e-6 * mean.abs()
    maps = torch.where(still, 128.0, (maps - mean) / torch.where(still, 1.0, deviation) * 64 + 128)
    maps = maps.nan_to_num(0).clamp(0, 255)
    height, width = maps.shape[2:]
    scale = side / max(height, width)
    if scale < 1:
        maps = interpolate(maps, (max(1, round(height * scale)), max(1, round(width * scale))), mode="area")
    return maps.to(torch.uint8).cpu()


def filters_of(convolution: nn.Conv2d) -> NDArray[np.float32]:
    """A copy of the filters, shape (out, in, height, width); more than three input channels are averaged to one."""
    weight = convolution.weight.detach().float().cpu()
    return (weight if weight.shape[1] in (1, 3) else weight.mean(1, keepdim=True)).numpy().copy()
