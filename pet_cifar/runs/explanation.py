"""Shows for each picture what the decision looked at: overlays as PNG files, and a page of all of them."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jinja2 import Environment
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pet_cifar.callbacks.images.drawing import PixelArray
from pet_cifar.callbacks.images.grad_cam import blend, check_captum, explain, last_layer_with_maps
from pet_cifar.callbacks.images.inspection import as_input, untouched
from pet_cifar.data.pixels.decode import DecodeError, decode, decode_whole
from pet_cifar.errors import InputError, check_new_folder, disk_errors
from pet_cifar.names import plain_stem, printable
from pet_cifar.runs.stream import Row
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import Prediction

SIDE = 360
"""The longer side of an overlay in pixels."""


class Shown(NamedTuple):
    """One picture on the page: its two files, its path, the prediction, and the class whose places are shown."""

    overlay: str
    picture: str
    path: str
    prediction: Prediction
    explained: str


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something, and to work without captum.

    Raises:
        InputError: It does, or captum is missing.
    """
    check_captum("explaining")
    check_new_folder("--explain", folder)


def write(net: ImageClassifier, rows: Sequence[Row], folder: Path, top: int, run: str) -> Path:
    """Writes the overlay of each picture that could be read beside the picture, and ``index.html``.

    Args:
        net: The net, in evaluation.
        rows: The pictures with their predictions.
        folder: The folder, which is made.
        top: How many classes the page lists for a picture.
        run: Where the net comes from, for the page.

    Returns:
        The page.

    Raises:
        InputError: No layer of the net gives maps, or the folder cannot be written.
    """
    layer = explained_layer(net)
    shown: list[Shown] = []
    channels, size = net.picture_shape
    with disk_errors(folder, "; give another --explain"):
        folder.mkdir(parents=True, exist_ok=True)
    for row in tqdm(rows, desc="explaining", unit="", disable=None, leave=False):
        if row.prediction is None:
            continue
        try:
            encoded = row.source.read()
            picture, pixels = decode_whole(encoded, SIDE), decode(encoded, size, channels)
        except (DecodeError, OSError, ValueError):  # It was there when it was predicted, and has no overlay now.
            continue
        sheet, explained = overlay_of(net, layer, torch.from_numpy(pixels), picture)
        stem = f"{len(shown) + 1:05d}_{plain_stem(Path(row.source.name).stem)}"
        with disk_errors(folder, "; give another --explain"):
            Image.fromarray(sheet).save(folder / f"{stem}.png")
            Image.fromarray(picture).save(folder / f"{stem}.jpg", quality=90)
        path = printable(row.source.name)
        shown.append(Shown(f"{stem}.png", f"{stem}.jpg", path, row.prediction, net.class_names[explained]))
    source = files("pet_cifar.runs").joinpath("explanation.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    html = page.render(shown=shown, layer=layer, run=printable(run), top=top)
    with disk_errors(folder, "; give another --explain"):
        (folder / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"


def explained_layer(net: ImageClassifier) -> str:
    """The name of the layer whose maps are weighed: the last one that gives any.

    Raises:
        InputError: None does.
    """
    channels, size = net.picture_shape
    with untouched(net):
        layer = last_layer_with_maps(net, as_input(net, torch.zeros(1, channels, size, size, dtype=torch.uint8)))
    if layer is None:
        raise InputError(f"no layer of {type(net).__name__} gives maps, by which a picture is explained")
    return layer


def overlay_of(net: ImageClassifier, layer: str, pixels: Tensor, picture: PixelArray) -> tuple[PixelArray, int]:
    """The picture with what speaks for the predicted class in red over it.

    Args:
        net: The net, in evaluation.
        layer: The layer whose maps are weighed.
        pixels: The picture as the net takes it, uint8 or floats in [0, 1], shape (C, S, S).
        picture: The same picture to look at, shape (H, W, 3).

    Returns:
        The overlay, shape (H, W, 3), and the number of the class that it explains.
    """
    image = pixels[None] if pixels.is_floating_point() else as_input(net, pixels[None])
    with untouched(net):
        weight, predicted, _ = explain(net, layer, image.to(net.device), SIDE)
    height, width = picture.shape[:2]
    # The net saw the whole picture squashed into a square, so that its weights are stretched back.
    stretched = Image.fromarray(weight).resize((width, height), Image.Resampling.BILINEAR)
    return blend(picture, np.asarray(stretched)), predicted
