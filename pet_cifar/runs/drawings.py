"""The pictures of a run as files: what the callbacks show in TensorBoard, for any picture and for every channel."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from pet_cifar.callbacks.images.base import EvalSplit
from pet_cifar.callbacks.images.confusion_matrix import confusion_sheet, read_confusions
from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, encode, grid, in_rows
from pet_cifar.callbacks.images.first_layer_filters import filter_sheet
from pet_cifar.callbacks.images.grad_cam import check_captum
from pet_cifar.callbacks.images.inspection import (
    balanced_rows,
    convolutions,
    filters_of,
    layers_like,
    leaf_layers,
    maps_of,
    pictures_of,
    untouched,
)
from pet_cifar.callbacks.images.sample_pictures import sample_sheet
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.pixels.decode import DecodeError, decode, decode_whole
from pet_cifar.errors import InputError, did_you_mean, disk_errors
from pet_cifar.names import plain_stem, printable
from pet_cifar.runs.curves import draw_curves, read_curves
from pet_cifar.runs.explanation import SIDE, explained_layer, overlay_of
from pet_cifar.runs.sources import Source
from pet_cifar.training.classifier import ImageClassifier

EVAL_SPLITS: tuple[EvalSplit, ...] = ("val", "test")
EVERY_CHANNEL = 1_000_000


class NamedPicture(NamedTuple):
    """One picture to look at.

    Attributes:
        name: What it is called in titles.
        stem: What its files are called.
        pixels: What the net takes, uint8, shape (C, S, S).
        look: The same picture for a person, shape (H, W, 3).
    """

    name: str
    stem: str
    pixels: Tensor
    look: PixelArray


def named_pictures(sources: Sequence[Source], net: ImageClassifier) -> tuple[list[NamedPicture], list[str]]:
    """Reads pictures from files; also returns a line for each that cannot be read.

    Args:
        sources: The files.
        net: The net, which says how large its pictures are.
    """
    channels, size = net.picture_shape
    pictures: list[NamedPicture] = []
    bad: list[str] = []
    for source in sources:
        name = printable(source.name)
        try:
            encoded = source.read()
            pixels, look = torch.from_numpy(decode(encoded, size, channels)), decode_whole(encoded, SIDE)
        except (DecodeError, OSError, ValueError) as error:
            bad.append(f"{name}: {printable(str(error))}")
            continue
        pictures.append(NamedPicture(name, _stem(len(pictures), Path(source.name).stem), pixels, look))
    return pictures, bad


def pictures_of_run(data: ImageDataModule, count: int) -> list[NamedPicture]:
    """The validation pictures that the run's own callbacks show, balanced over the classes.

    Args:
        data: The run's data module, set up for training.
        count: How many.
    """
    labels = data.labels("val")
    rows = balanced_rows(labels, count, data.split_seed)
    found = zip(rows, pictures_of(data, "val", rows), strict=True)
    records = data.splits["val"]
    return [
        NamedPicture(
            f"{printable(records[row].path)} ({data.class_names[labels[row]]})",
            _stem(number, f"{data.class_names[labels[row]]}_{Path(records[row].path).stem}"),
            pixels,
            enlarged(channels_last(pixels.numpy()), SIDE),
        )
        for number, (row, pixels) in enumerate(found)
    ]


def enlarged(picture: PixelArray, side: int) -> PixelArray:
    """A square picture of shape (S, S, 3) at another size; single pixels of a tiny one stay visible as squares."""
    smooth = Image.Resampling.BICUBIC if 4 * len(picture) > side else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), smooth))


def _stem(number: int, name: str) -> str:
    return f"{number + 1:03d}_{plain_stem(name)}"


def chosen_layers(net: ImageClassifier, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The layers of these names or patterns; none, or ``all``, takes every convolution.

    Raises:
        InputError: The net has no such layer.
    """
    if not patterns or list(patterns) == ["all"]:
        return dict(convolutions(net))
    try:
        return layers_like(net, patterns)
    except KeyError as error:
        valid = list(leaf_layers(net))
        raise InputError(
            f"layers: {type(net).__name__} has no layer like {error.args[0]}; give all, or some of its {len(valid)}, "
            f"such as {', '.join(valid[:10])}{did_you_mean(error.args[0], valid)}"
        ) from error


def draw_feature_maps(
    net: ImageClassifier, pictures: Sequence[NamedPicture], layers: dict[str, nn.Module], folder: Path
) -> int:
    """Draws all channels of each layer for each picture, one file for each two in ``feature_maps/<picture>/``.

    Returns:
        The number of files.
    """
    count = 0
    for picture in tqdm(pictures, desc="feature maps", unit="", disable=None, leave=False):
        for number, (name, sheet) in enumerate(feature_map_sheets(net, picture.name, picture.pixels, layers), 1):
            _write(sheet, folder / "feature_maps" / picture.stem / f"{number:03d}_{name}.png")
            count += 1
    return count


def feature_map_sheets(
    net: ImageClassifier, title: str, pixels: Tensor, layers: dict[str, nn.Module]
) -> Iterator[tuple[str, PixelArray]]:
    """Draws all channels of each layer for one picture; a layer that does not run, or gives no maps, is left out.

    Args:
        net: The net, in evaluation.
        title: What the picture is called.
        pixels: The picture as the net takes it, uint8, shape (C, S, S).
        layers: The layers by name.
    """
    with untouched(net):
        found = maps_of(net, pixels[None], layers, EVERY_CHANNEL, 96, only_maps=True)
    for name, layer in found.items():
        if layer.maps:
            channels, height, width = layer.shape
            across = max(8, math.ceil(math.sqrt(channels)))
            yield (
                name,
                grid(
                    f"{name}, {type(layers[name]).__name__}: {channels} maps of {height} x {width}",
                    in_rows([channels_last(one[None]) for one in layer.maps[0]], across),
                    side=96 if channels <= 144 else 64,
                    subtitle=f"{title}; each map scaled by itself",
                ),
            )


def draw_filters(net: ImageClassifier, checkpoint: dict[str, Any], folder: Path) -> int:
    """Draws ``first_layer_filters.png``, with those of the start where the checkpoint has kept them.

    Returns:
        1, or 0 where the net has no convolution.
    """
    sheet = filters_sheet(net, checkpoint)
    if sheet is None:
        return 0
    _write(sheet, folder / "first_layer_filters.png")
    return 1


def filters_sheet(net: ImageClassifier, checkpoint: Mapping[str, Any]) -> PixelArray | None:
    """Draws the filters of the first convolution; None for a net without one.

    Args:
        net: The net.
        checkpoint: What its checkpoint holds, perhaps also the filters of the start.
    """
    layers = convolutions(net)
    if not layers:
        return None
    name, layer = next(iter(layers.items()))
    now = filters_of(layer)
    initial = None
    for callback, state in (checkpoint.get("callbacks") or {}).items():
        if str(callback).startswith("FirstLayerFilters") and isinstance(state.get("initial"), Tensor):
            initial = state["initial"].float().numpy()
    initial = initial if initial is not None and initial.shape == now.shape else None
    return filter_sheet(name, now, initial, most=len(now), when="trained")


def draw_grad_cam(net: ImageClassifier, pictures: Sequence[NamedPicture], folder: Path) -> int:
    """Draws for each picture what speaks for the predicted class, as ``grad_cam/<picture>.png``.

    Returns:
        The number of files.

    Raises:
        InputError: No layer gives maps, or captum is not installed.
    """
    check_captum("Grad-CAM")
    layer = explained_layer(net)
    for picture in tqdm(pictures, desc="Grad-CAM", unit="", disable=None, leave=False):
        sheet, explained = overlay_of(net, layer, picture.pixels, picture.look)
        shown = grid(
            f"Grad-CAM of {layer}",
            [[picture.look, sheet]],
            side=SIDE,
            subtitle=picture.name,
            captions=[[["the picture"], [f"red speaks for {net.class_names[explained]}"]]],
        )
        _write(shown, folder / "grad_cam" / f"{picture.stem}.png")
    return len(pictures)


def draw_confusions(run: Path, folder: Path) -> int:
    """Draws ``confusion_matrix_<split>.png`` of validation and test, as far as the run has their tables.

    Returns:
        The number of files.

    Raises:
        InputError: A table is damaged.
    """
    tables = {split: run / split / "confusion_matrix.csv" for split in EVAL_SPLITS}
    there = {split: table for split, table in tables.items() if table.is_file()}
    for split, table in there.items():
        names, counts = read_confusions(table)
        sheet = confusion_sheet(counts, [printable(name) for name in names], split)
        _write(sheet, folder / f"confusion_matrix_{split}.png")
    return len(there)


def draw_run_curves(run: Path, folder: Path) -> int:
    """Draws ``curves.png`` and ``curves.svg``.

    Returns:
        The number of files.

    Raises:
        InputError: The run has no metrics, or matplotlib is not installed.
    """
    files = [folder / "curves.png", folder / "curves.svg"]
    curves = read_curves(run / "metrics.csv")
    with disk_errors(folder, "; give another --output"):
        folder.mkdir(parents=True, exist_ok=True)
    draw_curves(curves, f"{run.parent.name}/{run.name}" if run.parent.name else run.name, files)
    return len(files)


def draw_samples(data: ImageDataModule, folder: Path) -> int:
    """Draws ``sample_pictures.png``, training pictures of every class, and returns that it is one file."""
    _write(sample_sheet(data), folder / "sample_pictures.png")
    return 1


def _write(picture: PixelArray, file: Path) -> None:
    with disk_errors(file, "; give another --output"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(np.ascontiguousarray(picture)))
