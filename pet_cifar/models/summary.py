"""The model summary: a table of a net's layers."""

import torch
from torch import Tensor, nn

from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import evaluating


def summary(model: ImageClassifier) -> str:
    """Lists every layer with its output's shape and its parameters, and the totals.

    Running statistics count as parameters that are not trained, as Keras counts them. The net is run once on its
    example input, in evaluation, and left as it was.
    """
    example = model.example_input_array
    assert isinstance(example, Tensor)
    example = example.to(model.mean)  # the net may be on a GPU, or of another type
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        return hook

    layers = {
        f"{part}.{name}".rstrip("."): layer
        for part, net in (("backbone", model.backbone), ("head", model.head))
        for name, layer in net.named_modules()
        # Some layers have children and parameters of their own, such as a norm with its activation.
        if _own(layer) or not (list(layer.children()) or isinstance(layer, nn.Identity))
    }
    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()

    rows = [("layer", "type", "output shape", "parameters")]
    trained = fixed = 0
    for name, layer in layers.items():
        own = sum(one.numel() for one in _own(layer) if one.requires_grad)
        still = sum(one.numel() for one in _own(layer) if not one.requires_grad)
        shape = " x ".join(map(str, shapes.get(name, ())))
        rows.append((name, type(layer).__name__, shape, f"{own + still:,}" if own + still else ""))
        trained, fixed = trained + own, fixed + still
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{name:{widths[0]}}  {kind:{widths[1]}}  {shape:>{widths[2]}}  {count:>{widths[3]}}"
        for name, kind, shape, count in rows
    ]
    rule = "-" * len(lines[0])
    title = f"{type(model).__name__} for pictures of {' x '.join(map(str, example.shape[1:]))}"
    totals = f"total parameters {trained + fixed:,}: trained {trained:,}, not trained {fixed:,}"
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, totals])


def _own(layer: nn.Module) -> list[Tensor]:
    """A layer's parameters, running mean and variance, but not the number of batches; without those of its children."""
    buffers = [buffer for buffer in layer.buffers(recurse=False) if buffer.is_floating_point()]
    return [*layer.parameters(recurse=False), *buffers]
