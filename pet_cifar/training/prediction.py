"""What a net says of pictures that come without a data module."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pet_cifar.data.pixels.convert import Picture, checked_range, pixels_of
from pet_cifar.errors import InputError

NONE_OF_THESE = "none of these"


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a net says of one picture.

    Attributes:
        probabilities: The probability of each class, float32, shape (num_classes,).
        class_names: The names of the classes.
        is_outlier: Whether the picture is of none of the classes; None where the net cannot tell.
        source: The picture's path, for a picture out of a folder, an archive or a list of paths; else empty.
    """

    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]
    is_outlier: bool | None = None
    source: str = ""

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.class_names[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The probability of that class."""
        return float(self.probabilities.max())

    @property
    def none_of_these(self) -> bool:
        """Whether the net knows that the picture is of none of the classes."""
        return bool(self.is_outlier)

    @property
    def margin(self) -> float:
        """The highest probability less the second highest: the smaller, the less certain the net is."""
        second, first = np.sort(self.probabilities)[-2:]
        return float(first - second)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[place], float(self.probabilities[place])) for place in order]

    def __str__(self) -> str:
        words = f"{self.label} {100 * self.probability:.1f} %"
        return f"{words} ({NONE_OF_THESE})" if self.none_of_these else words

    def __repr__(self) -> str:
        return f"Prediction({self})"


class PicturePredictor(Protocol):
    """What this module asks of a net; `ImageClassifier` has it."""

    class_names: tuple[str, ...]

    @property
    def picture_shape(self) -> tuple[Literal[1, 3], int]:
        """The channels and the side of its pictures."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    def predict_pictures(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities, and whether each picture is of none of the classes."""


def batch_size_for(image_size: int) -> int:
    """How many pictures are computed together: 32 of 224 x 224 pixels, and about as many pixels for other sizes."""
    return max(8, min(256, 32 * 224**2 // image_size**2))


def predict(net: PicturePredictor, pictures: "Picture | Iterable[Picture]") -> Prediction | list[Prediction]:
    """Says what is in one picture, or in several.

    Args:
        net: The net, in evaluation.
        pictures: One `Picture`; or several of them: an iterable, an array of shape (B, H, W, C), or a tensor of shape
            (B, C, H, W).

    Returns:
        A prediction for one picture, and a list of them for several.

    Raises:
        InputError: A picture is not there, is none, or has another shape.
    """
    if isinstance(pictures, Tensor) and pictures.ndim == 4:
        return list(_predict_tensor(net, pictures))
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4:
        pictures = list(pictures)
    if isinstance(pictures, str | bytes | Image.Image | np.ndarray | Tensor) or not isinstance(pictures, Iterable):
        channels, size = net.picture_shape
        return predict_pixels(net, [pixels_of(pictures, size, channels)], [_source(pictures)])[0]
    return list(predict_each(net, pictures))


def predict_each(net: PicturePredictor, pictures: "Iterable[Picture]") -> Iterator[Prediction]:
    """Yields a prediction for each picture, computed in batches."""
    channels, size = net.picture_shape
    waiting = iter(pictures)
    while batch := list(islice(waiting, batch_size_for(size))):
        images = [pixels_of(picture, size, channels) for picture in batch]
        yield from predict_pixels(net, images, [_source(picture) for picture in batch])


def _source(picture: object) -> str:
    return str(picture) if isinstance(picture, str | Path) else ""


def _predict_tensor(net: PicturePredictor, images: Tensor) -> Iterator[Prediction]:
    channels, size = net.picture_shape
    is_byte = images.dtype == torch.uint8
    if tuple(images.shape[1:]) != (channels, size, size) or not (is_byte or images.is_floating_point()):
        yield from predict_each(net, images)
        return
    step = batch_size_for(size)
    for start in range(0, len(images), step):
        batch = images[start : start + step].detach()
        yield from predict_pixels(net, batch if is_byte else checked_range(batch.float()))


def predict_pixels(
    net: PicturePredictor, images: "Sequence[Tensor] | Tensor", sources: Sequence[str] = ()
) -> list[Prediction]:
    """Predicts one batch of pictures in the net's size.

    Args:
        net: The net, in evaluation.
        images: The pictures, each uint8 or floats in [0, 1], shape (C, S, S).
        sources: The paths of the pictures; none leaves them empty.
    """
    if not len(images):
        return []
    with torch.inference_mode():
        image = images if isinstance(images, Tensor) else _stacked(images)
        image = image.to(net.device)
        # The same operation as that of a test, so that the numbers are the same to the last bit.
        image = image.float().div_(255) if image.dtype == torch.uint8 else image
        probabilities, outliers = net.predict_pictures(image)
        rows = probabilities.float().cpu().numpy()
    flags = [None] * len(rows) if outliers is None else outliers.tolist()
    names = sources or [""] * len(rows)
    found = zip(rows, flags, names, strict=True)
    return [Prediction(row, net.class_names, flag, name) for row, flag, name in found]


def _stacked(images: Sequence[Tensor]) -> Tensor:
    kinds = {image.dtype for image in images}
    if len(kinds) > 1:  # Pictures of 0 to 255 stand beside floats in [0, 1].
        images = [image.float() / 255 if image.dtype == torch.uint8 else image for image in images]
    return torch.stack([image.cpu() for image in images])


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Switches a net to evaluation, and afterwards every layer back to what it was."""
    modes = {layer: layer.training for layer in net.modules()}
    try:
        net.eval()
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


def check_names(class_names: Sequence[object], num_classes: int) -> tuple[str, ...]:
    """The names of classes as text.

    Raises:
        InputError: There are not as many as classes, or two are the same.
    """
    names = tuple(map(str, class_names))
    if len(names) != num_classes or len(set(names)) != len(names):
        raise InputError(
            f"class_names has {len(names)} names, {len(set(names))} of them different, for a net of {num_classes} "
            "classes; give a name of its own for each class, in the order of their numbers"
        )
    return names
