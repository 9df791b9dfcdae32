"""The pictures of the exercise: samples, feature maps, filters, and what becomes of a picture by size or by chance."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import nn

from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, in_rows, scale_to
from pet_cifar.callbacks.images.first_layer_filters import filter_shades
from pet_cifar.callbacks.images.inspection import (
    balanced_rows,
    convolutions,
    filters_of,
    maps_of,
    pictures_of,
    spread,
    untouched,
)
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.names import printable
from pet_cifar.runs.drawings import EVERY_CHANNEL
from pet_cifar.runs.exercise.blocks import Image
from pet_cifar.training.classifier import ImageClassifier

GAP = 3
"""The pixels between two pictures of a sheet, which are transparent."""
SIDE = 96
"""The side of a feature map and of a sample in pixels."""
QUALITY = 82
"""The quality of WebP."""
SPLIT_NAMES: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


def as_uri(picture: PixelArray, *, is_exact: bool = False) -> str:
    """A picture as WebP within its own address.

    Args:
        picture: uint8, shape (H, W, 3), or (H, W, 4) with transparency.
        is_exact: Whether every pixel is kept as it is.
    """
    stream = BytesIO()
    image = PillowImage.fromarray(np.ascontiguousarray(picture))
    image.save(stream, "WEBP", quality=QUALITY, lossless=is_exact, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def sheet(rows: Sequence[Sequence[PixelArray]], side: int) -> PixelArray:
    """Puts pictures of shape (H, W, 3) into rows, each within a square; shape (height, width, 4)."""
    step, across = side + GAP, max(len(row) for row in rows)
    pixels = np.zeros((step * len(rows) - GAP, step * across - GAP, 4), np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            small = scale_to(picture, side)
            height, width = small.shape[:2]
            top, left = y * step + (side - height) // 2, x * step + (side - width) // 2
            pixels[top : top + height, left : left + width, :3] = small
            pixels[top : top + height, left : left + width, 3] = 255
    return pixels


def _image(pixels: PixelArray, alt: str, caption: str, *, is_pixelated: bool = False) -> Image:
    return Image(as_uri(pixels, is_exact=is_pixelated), alt, caption, pixels.shape[1], is_pixelated)


def samples(data: ImageDataModule, per_class: int) -> list[Image]:
    """Training pictures of every class, a strip for each."""
    labels = data.labels("train")
    rows = balanced_rows(labels, per_class * data.num_classes, data.split_seed)
    found = []
    for number, name in enumerate(data.class_names):
        own = [channels_last(one.numpy()) for one in pictures_of(data, "train", rows[labels[rows] == number])]
        is_tiny = data.image_size < SIDE // 2
        pixels = sheet([own], 2 * data.image_size if is_tiny else SIDE)
        found.append(_image(pixels, f"{len(own)} training pictures of {name}", name, is_pixelated=is_tiny))
    return found


def first_of(data: ImageDataModule, name: str) -> tuple[ImageRecord, Split]:
    """The first picture of a class in the order of the list, and the split that it is in."""
    place = {record.path: number for number, record in enumerate(data.listed)}
    own = [
        (place[record.path], record, split)
        for split, records in data.splits.items()
        for record in records
        if record.label == name
    ]
    _, record, split = min(own, key=lambda one: one[0])
    return record, split


def feature_maps(net: ImageClassifier, data: ImageDataModule, record: ImageRecord) -> list[Image]:
    """Every channel of every convolution for one picture, after the picture itself.

    Each map is scaled by itself as in the original exercise: minus its mean, over its standard deviation, x 64 + 128.
    """
    pixels = torch.from_numpy(data.read(record))
    path, layers = printable(record.path), dict[str, nn.Module](convolutions(net))
    with untouched(net):
        found = maps_of(net, pixels[None], layers, EVERY_CHANNEL, SIDE)
    look = channels_last(pixels.numpy())
    images = [_image(sheet([[look]], min(200, data.image_size)), f"the picture {path}", f"{path}, as the net takes it")]
    for number, (name, layer) in enumerate(found.items(), 1):
        channels, height, width = layer.shape
        maps = in_rows([channels_last(one[None]) for one in layer.maps[0]], 8)
        caption = f"convolution {number} ({name}): all {channels} maps of {height} x {width}"
        images.append(_image(sheet(maps, SIDE), f"the {channels} feature maps of {name} for {path}", caption))
    return images


def map_strips(net: ImageClassifier, data: ImageDataModule, count: int, maps: int = 8) -> list[Image]:
    """For each convolution a few channels for several validation pictures, each in a row that begins with it."""
    labels = data.labels("val")
    rows = balanced_rows(labels, count, data.split_seed)
    pixels = pictures_of(data, "val", rows)
    with untouched(net):
        found = maps_of(net, pixels, dict[str, nn.Module](convolutions(net)), maps, SIDE)
    names = [data.class_names[label] for label in labels[rows]]
    images = []
    for number, (name, layer) in enumerate(found.items(), 1):
        strips = [
            [channels_last(picture.numpy()), *(channels_last(one[None]) for one in own)]
            for picture, own in zip(pixels, layer.maps, strict=True)
        ]
        shown = ", ".join(map(str, layer.channels))
        caption = f"convolution {number} ({name}): the picture, then channels {shown}; from the top {', '.join(names)}"
        images.append(_image(sheet(strips, SIDE), f"feature maps of {name} for {len(names)} pictures", caption))
    return images


def first_filters(net: ImageClassifier) -> tuple[Image, int]:
    """The filters of the first convolution, from the layer's smallest weight in black to its largest in white.

    Returns:
        The picture, and how many filters there are.
    """
    name, layer = next(iter(convolutions(net).items()))
    filters = filters_of(layer)
    shades = filter_shades(filters, "layer", range(len(filters)))
    pixels = sheet(in_rows(shades, 8), 12 * max(filters.shape[2:]))
    size = " x ".join(map(str, filters.shape[2:]))
    caption = f"the {len(filters)} filters of {size} of {name}"
    return _image(pixels, caption, caption, is_pixelated=True), len(filters)


def larger(small: ImageDataModule, large: ImageDataModule, record: ImageRecord) -> list[Image]:
    """One picture at the small and at the large size, both shown equally large."""
    return [
        Image(
            as_uri(channels_last(data.read(record))),
            f"{printable(record.path)} at {data.image_size} x {data.image_size} pixels",
            f"{data.image_size} x {data.image_size} pixels",
            300,
        )
        for data in (small, large)
    ]


def augmented(data: ImageDataModule, count: int) -> Image:
    """One training picture as it is, and as ``count`` epochs see it that augment."""
    row = spread(range(len(data.splits["train"])), 1)
    views = [data.view("train", np.array(row, np.int64), number)[0] for number in range(count + 1)]
    looks = [channels_last((one.clamp(0, 1) * 255).round().byte().cpu().numpy()) for one in views]
    caption = f"left the picture as it is, then as {count} epochs see it"
    return _image(sheet(in_rows(looks, 4), 2 * SIDE), f"a picture and {count} augmented versions of it", caption)
