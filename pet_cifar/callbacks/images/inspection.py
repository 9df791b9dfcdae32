"""Looks at what a net makes of a few pictures, without changing the net or the run."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import Split
from pet_cifar.errors import InputError

Item = TypeVar("Item")


class LayerMaps(NamedTuple):
    """The feature maps of one layer.

    Attributes:
        shape: The shape of the layer's output for one picture, (C, H, W); empty for a layer that does not run.
        channels: The numbers of the channels that are kept.
        maps: For each picture uint8 of shape (channels, h, w), each map scaled by itself.
    """

    shape: tuple[int, ...]
    channels: list[int]
    maps: list[NDArray[np.uint8]]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Switches to evaluation without gradients; afterwards modes, gradients, hooks and random states are as before.

    A compiled net is run uncompiled, because its compiled graphs do not call hooks.
    """
    modes = {layer: layer.training for layer in module.modules()}
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # Otherwise a backward pass would add to this very tensor.
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
    # Lightning's isolate_rng does not restore the states after an exception.
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"}
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _uncompiled() -> AbstractContextManager[object]:
    # Importing the compiler takes seconds, and where it is not imported yet, nothing is compiled.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def balanced_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Chooses ``count`` rows, or all, as many of each class as possible; the choice depends on the seed alone."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turn[own] = np.arange(len(own))
    # This takes the first row of every class, then the second of every class, and so on.
    chosen = np.lexsort((labels, turn))[:count]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def pictures_of(data: ImageDataModule, split: Split, rows: NDArray[np.int64]) -> Tensor:
    """The pictures of these rows of a split: uint8 on the CPU, shape (n, C, H, W)."""
    return data.pixels(split).take(rows).cpu()


def as_input(module: nn.Module, image: Tensor) -> Tensor:
    """Turns uint8 pictures into what ``module`` takes: floats in [0, 1] of its own type, on its device."""
    parameter = next(module.parameters())
    return (image.to(parameter.device).float() / 255).to(parameter.dtype)


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """Lists all 2-D convolutions by name, in the order in which they were built."""
    return {clean_name(name): layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}


def clean_name(name: str) -> str:
    """Removes from a layer's name what torch.compile puts into it."""
    return name.replace("_orig_mod.", "").removesuffix("._orig_mod")


def named_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Lists all layers of the net by name, those that hold others too, but not its metrics."""
    layers = {clean_name(name): layer for name, layer in module.named_modules() if name}
    return {name: layer for name, layer in layers.items() if "_metrics" not in name.partition(".")[0]}


def leaf_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Lists the layers of the net by name that hold no others."""
    return {name: layer for name, layer in named_layers(module).items() if not list(layer.children())}


def layers_like(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Lists the layers whose names match one of the patterns, such as ``backbone.*``, in the net's order.

    Raises:
        KeyError: A pattern matches no layer.
    """
    layers = leaf_layers(module)
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {name: layer for name, layer in layers.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise KeyError(pattern)
        found |= matching
    return {name: layer for name, layer in layers.items() if name in found}


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Picks at most ``most`` items: the first, the last, and others at equal distances between them."""
    indices = np.linspace(0, max(0, len(items) - 1), min(most, len(items))).round().astype(int)
    return [items[index] for index in indices]


@contextmanager
def outputs_of(
    layers: Mapping[str, nn.Module], keep: Callable[[str, Tensor], Tensor]
) -> Iterator[dict[str, list[Tensor]]]:
    """Collects ``keep(name, output)`` of each layer, once for every time that it runs within the block."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def remember(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(layer: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                return
            # The output is kept at once, because an in-place ReLU may change it next.
            found[name].append(keep(name, output.detach()))

        return hook

    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def normalized_maps(output: Tensor, most: int, side: int) -> Tensor:
    """Scales each feature map by itself: minus its mean, divided by its standard deviation, x 64 + 128, clipped.

    Args:
        output: The output of a layer, shape (B, C, H, W).
        most: The number of channels to keep, spread over all of them.
        side: The side in pixels that larger maps are reduced to, by the mean over areas.

    Returns:
        uint8 on the CPU, shape (B, min(C, most), h, w). A constant map is gray, and what is not a number is black.
    """
    chosen = spread(range(output.shape[1]), most)
    maps = output[:, chosen].float()
    mean = maps.mean((2, 3), keepdim=True)
    deviation = ((maps - mean) ** 2).mean((2, 3), keepdim=True).sqrt()
    # Rounding gives a constant map a small deviation.
    constant = deviation <= 1e-6 * mean.abs()
    maps = torch.where(constant, 128.0, (maps - mean) / torch.where(constant, 1.0, deviation) * 64 + 128)
    maps = maps.nan_to_num(0).clamp(0, 255)
    height, width = maps.shape[2:]
    scale = side / max(height, width)
    if scale < 1:
        maps = interpolate(maps, (max(1, round(height * scale)), max(1, round(width * scale))), mode="area")
    return maps.to(torch.uint8).cpu()


def maps_of(
    module: nn.Module,
    images: Tensor,
    layers: Mapping[str, nn.Module],
    most: int,
    side: int,
    *,
    only_maps: bool = False,
) -> dict[str, LayerMaps]:
    """Collects what layers answer to pictures, one picture at a time, since a large net's maps take gigabytes.

    Args:
        module: The net, in evaluation.
        images: uint8 pictures, shape (n, C, H, W).
        layers: Layers of the net by name.
        most: The number of channels to keep, spread over all of them.
        side: The side in pixels that larger maps are reduced to.
        only_maps: Passes over the layers that give no maps.

    Returns:
        What each layer gave; one that does not run, such as an auxiliary head of training, has no maps. Where a layer
        runs several times for each picture, its last output counts.

    Raises:
        InputError: A layer gives no maps.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        if output.ndim != 4 and only_maps:
            return output.new_empty(0)
        if output.ndim != 4:
            raise InputError(f"layers: {name} gives {output[0].numel()} numbers a picture and no maps; leave it out")
        shapes[name] = tuple(output.shape[1:])
        return normalized_maps(output, most, side)

    with outputs_of(layers, keep) as found:
        for image in images:
            module(as_input(module, image[None]))
    last = {
        name: found[name][len(found[name]) // len(images) - 1 :: len(found[name]) // len(images)] for name in shapes
    }
    return {
        name: LayerMaps(shapes[name], spread(range(shapes[name][0]), most), [one[0].numpy() for one in last[name]])
        if name in last
        else LayerMaps((), [], [])
        for name in layers
    }


def filters_of(convolution: nn.Conv2d) -> NDArray[np.float32]:
    """Copies a layer's filters, shape (out, in, height, width); unless ``in`` is 1 or 3, it is averaged to 1."""
    weight = convolution.weight.detach().float().cpu()
    return (weight if weight.shape[1] in (1, 3) else weight.mean(1, keepdim=True)).numpy().copy()
