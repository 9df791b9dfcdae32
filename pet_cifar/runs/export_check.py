"""Compares what an exported file says with what the run says, picture by picture."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pet_cifar.callbacks.images.drawing import channels_last
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.pixels.decode import decode, fit_array
from pet_cifar.data.pixels.growing import Pixels
from pet_cifar.data.synthetic import synthetic_picture
from pet_cifar.errors import InputError
from pet_cifar.runs.export import Card, onnx_program
from pet_cifar.runs.exported_file import METADATA, session_of
from pet_cifar.runs.exported_net import FromPixels
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import evaluating

TOLERANCE = 1e-4
"""The largest difference of a probability that counts as none, in float32."""
BATCH = 32
Answers = list[NDArray[Any]]
"""What a file or a run says of pictures: probabilities, shape (n, num_classes), and perhaps which are of no class."""


@dataclass(frozen=True)
class Comparison:
    """How much a file differs from its run.

    Attributes:
        pictures: How many pictures were compared.
        kind: Which pictures they were.
        equal: How many of them have the same class, and the same answer to whether they are of any.
        difference: The largest difference of a probability.
    """

    pictures: int
    kind: str
    equal: int
    difference: float

    @property
    def is_exact(self) -> bool:
        """Whether all classes are equal and no probability differs by more than `TOLERANCE`."""
        return self.equal == self.pictures and self.difference <= TOLERANCE

    def __str__(self) -> str:
        share = 100 * self.equal / self.pictures
        return (
            f"of {self.pictures:,} {self.kind}, {share:.2f} % have the same class, and probabilities differ by "
            f"{self.difference:.1e} at most"
        )


def compare(expected: Answers, found: Answers, kind: str) -> Comparison:
    """Compares the answers to the same pictures."""
    same = expected[0].argmax(1) == found[0].argmax(1)
    if len(expected) > 1:
        same &= expected[1] == found[1]
    difference = float(np.abs(expected[0].astype(np.float64) - found[0]).max())
    return Comparison(len(same), kind, int(same.sum()), difference)


def drawn_pictures(net: ImageClassifier, count: int) -> Tensor:
    """Pictures that need no data: half of them noise, half of them shapes; uint8, shape (count, C, S, S)."""
    channels, size = net.picture_shape
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count - count // 2, size, size, 3), np.uint8)
    shapes = [synthetic_picture(number % 7, number, size) for number in range(count // 2)]
    pictures = torch.from_numpy(np.stack([*noise, *shapes])).permute(0, 3, 1, 2)
    return pictures.contiguous() if channels == 3 else pictures.float().mean(1, keepdim=True).byte()


Ask = Callable[[Tensor], Sequence[NDArray[Any]]]
"""What asks a net or a file: from pixels of shape (B, C, S, S), or a picture of shape (H, W, 3), to its outputs."""


def module_asker(module: nn.Module) -> Ask:
    """What asks a module of torch."""

    def ask(given: Tensor) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [one.cpu().numpy() for one in module(given)]

    return ask


def file_asker(file: Path, kind: str) -> Ask:
    """What asks a file.

    Args:
        file: The file.
        kind: ``onnx`` or ``torch``.
    """
    if kind == "torch":
        return module_asker(torch.export.load(file).module())
    session = session_of(file)
    (given,) = session.get_inputs()
    return lambda pixels: session.run(None, {given.name: pixels.numpy()})


def answers_of(ask: Ask, pixels: Tensor) -> Answers:
    """The answers to pictures in the net's size, asked in batches."""
    parts = [ask(batch) for batch in torch.split(pixels, BATCH)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def picture_answers(ask: Ask, pictures: Iterable[NDArray[np.uint8]]) -> Answers:
    """The answers to pictures of any size, of which one at a time is in memory."""
    parts = [ask(torch.from_numpy(picture)) for picture in pictures]
    return [np.stack(part) for part in zip(*parts, strict=True)]


def run_answers(net: ImageClassifier, pixels: Tensor) -> Answers:
    """What the run says of pictures in its size."""
    with evaluating(net):
        return answers_of(module_asker(FromPixels(net)), pixels.to(net.device))


def large_pictures(net: ImageClassifier) -> list[NDArray[np.uint8]]:
    """Drawn pictures of other sizes than the net's, half of it, and up to four times as large, shape (H, W, 3)."""
    _, size = net.picture_shape
    sides = [(0.5, 0.6), (0.9, 1.7), (1.7, 1.2), (2.5, 2.9), (4.1, 3.3)]
    smooth = [np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8) for number in range(4 * len(sides))]
    return [
        np.asarray(
            Image.fromarray(one).resize((round(wide * size), round(high * size)), Image.Resampling.BICUBIC)
        ).copy()
        for number, one in enumerate(smooth)
        for wide, high in [sides[number % len(sides)]]
    ]


def in_its_size(net: ImageClassifier, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Pictures as a run resizes them, shape (n, C, S, S)."""
    channels, size = net.picture_shape
    return torch.from_numpy(np.stack([fit_array(picture, size, channels) for picture in pictures]))


def refuse_difference(net: ImageClassifier, found: Comparison, pixels: Tensor | None) -> None:
    """Refuses a file that does not answer as the run does.

    Args:
        net: The net.
        found: What came of the comparison.
        pixels: Pictures with which the first layer is looked for that differs in ONNX; None where it is not ONNX.

    Raises:
        InputError: It differs.
    """
    if found.is_exact:
        return
    layer = None if pixels is None else first_difference(net, pixels[:4])
    where = f"; the first layer that differs is {layer}" if layer else ""
    raise InputError(f"nothing was written, since the file does not answer as the run does: {found}{where}")


class _Layers(nn.Module):
    """A net that gives what each of its layers gives, instead of its answer."""

    def __init__(self, net: ImageClassifier) -> None:
        super().__init__()
        self.inner = FromPixels(net)
        self.names: list[str] = []

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        self.names = []

        def keeper(name: str) -> Any:
            def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.is_floating_point():
                    self.names.append(name)
                    found.append(output.clone())

            return keep

        layers = [(name, one) for name, one in self.inner.net.named_modules() if name and not list(one.children())]
        handles = [layer.register_forward_hook(keeper(name)) for name, layer in layers]
        try:
            self.inner(pixels)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(found)


def first_difference(net: ImageClassifier, pixels: Tensor) -> str | None:
    """The first layer whose output differs between torch and ONNX; None where none does.

    Args:
        net: The net.
        pixels: A few pictures in its size.
    """
    module = _Layers(net)
    with torch.no_grad():
        expected = module(pixels.to(net.device))
    names = list(module.names)
    outputs = tuple(f"layer_{number}" for number in range(len(names)))
    model = onnx_program(module, net, "pixels", outputs).model_proto
    session = session_of(model.SerializeToString())
    for name, one, other in zip(names, expected, session.run(None, {"pixels": pixels.numpy()}), strict=True):
        scale = max(1.0, float(one.abs().max()))
        if not np.allclose(one.cpu().numpy() / scale, other / scale, atol=TOLERANCE):
            return name
    return None


def spread_rows(total: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` rows, evenly spread over all."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64))


def batches_of(pixels: Pixels, total: int, most: int, size: int = 256) -> Iterator[Tensor]:
    """Pictures of a split in chunks of ``size``: uint8 on the CPU, shape (n, C, S, S); see `spread_rows`.

    Args:
        pixels: The split's pictures.
        total: How many there are.
        most: How many are taken at most.
        size: How many a chunk has.
    """
    rows = spread_rows(total, most)
    for start in range(0, len(rows), size):
        yield pixels.take(rows[start : start + size]).cpu()


def labels_of(data: ImageDataModule, most: int) -> NDArray[np.int64]:
    """The labels of the test pictures that `batches_of` takes."""
    labels = data.labels("test")
    return labels[spread_rows(len(labels), most)]


def as_pictures(pixels: Tensor) -> list[NDArray[np.uint8]]:
    """Pictures in the net's size as a program gets them, each in color, shape (S, S, 3)."""
    return [channels_last(picture.numpy()).copy() for picture in pixels]


def whole_pictures(data: ImageDataModule, most: int) -> Iterator[NDArray[np.uint8]] | None:
    """The test pictures of `batches_of` as their files are, shape (H, W, 3), one by one; None without files."""
    records = data.splits["test"]
    files = [data.folder / records[row].path for row in spread_rows(len(records), most)]
    if not all(file.is_file() for file in files):
        return None
    return (decode(file.read_bytes(), None, 3).transpose(1, 2, 0).copy() for file in files)


def write_check(file: Path, card: Card) -> None:
    """Writes a card into an ONNX file, in the place of the one that it has."""
    import onnx

    model = onnx.load(str(file))
    for entry in model.metadata_props:
        if entry.key == METADATA:
            entry.value = card.text()
    onnx.save(model, str(file))
