"""Shows for each picture what the decision looked at: overlays as PNG files, and a page of all of them."""

from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment
from PIL import Image

from pet_cifar.callbacks.images.drawing import channels_last
from pet_cifar.callbacks.images.grad_cam import explain, last_layer_with_maps, overlay
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.data.files.names import printable
from pet_cifar.data.pixels.decode import decode
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.runs.load import Classifier
from pet_cifar.runs.prediction_table import Row

SIDE = 256


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something, and to work without captum.

    Raises:
        InputError: It does, or captum is missing.
    """
    if find_spec("captum") is None:
        raise InputError("--explain needs captum, which is not installed: pip install 'pet_cifar[gradcam]'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--explain {folder}: there is something already; give a new folder")


def write(net: Classifier, rows: Sequence[Row], folder: Path) -> Path:
    """Writes one overlay for each picture that could be read, and ``index.html``.

    Args:
        net: The net.
        rows: The pictures with their predictions.
        folder: The folder, which is made.

    Returns:
        The page.

    Raises:
        InputError: No layer of the net gives maps, or the folder cannot be written.
    """
    module = net.module
    blank = torch.zeros(1, net.num_channels, net.image_size, net.image_size, device=module.device)
    layer = last_layer_with_maps(module, blank)
    if layer is None:
        raise InputError(f"--explain: no layer of {type(module).__name__} gives maps, by which a picture is explained")
    shown = []
    with disk_errors(folder, "; give another --explain"):
        folder.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(row for row in rows if row.prediction is not None):
            pixels = decode(row.source.read(), net.image_size, net.num_channels)
            image = torch.from_numpy(pixels.astype(np.float32) / 255)[None].to(module.device)
            with untouched(module):
                weight, predicted, _ = explain(module, layer, image, SIDE)
            name = f"{number:05d}.png"
            Image.fromarray(overlay(channels_last(pixels), weight, SIDE)).save(folder / name)
            assert row.prediction is not None
            shown.append((name, printable(row.source.name), row.prediction, net.class_names[predicted]))
        source = files("pet_cifar.runs").joinpath("explanation.html.jinja").read_text(encoding="utf-8")
        page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
        html = page.render(shown=shown, layer=layer, checkpoint=printable(str(net.checkpoint)))
        (folder / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"
