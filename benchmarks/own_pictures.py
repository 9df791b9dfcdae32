"""Trains and tests on pictures from anywhere, as a user would: from a folder or an archive to a figure, nothing kept.

    python benchmarks/own_pictures.py pictures.zip photographs --weights tf_efficientnet_lite0.safetensors
    python benchmarks/own_pictures.py --faces lfw_subset.npy --weights none -- --data.image_size 64

Each set is trained and tested by two commands in an empty directory, by default with a head in closed form on
EfficientNet-Lite0. A row gives the classes, the seconds of both commands with all imports, the accuracy of left-out
training pictures, and the test's. ``--faces`` takes scikit-image's small set of 200 gray pictures, of which the first
100 are faces. What follows ``--`` goes to ``fit``.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from report import Report, parsed, parser, run_or_explain

from pet_cifar.errors import InputError


def main() -> None:
    """Measures and prints everything."""
    options = parser(__doc__)
    options.add_argument("sources", nargs="*", type=Path, help="Folders and archives of pictures.")
    options.add_argument("--faces", type=Path, help="scikit-image's lfw_subset.npy.")
    options.add_argument("--config", default="cats_dogs_linear", help="The config that trains.")
    options.add_argument("--weights", default="timm", help="Weights of the backbone: timm, none, or a file.")
    arguments, further = parsed(options)
    weights = arguments.weights
    if weights not in ("timm", "none"):
        weights = str(Path(weights).absolute())
    report = Report(("pictures", "classes", "seconds", "left out", "test"), arguments, f"config {arguments.config}")
    with tempfile.TemporaryDirectory() as folder:
        faces = [write_faces(arguments.faces, Path(folder))] if arguments.faces else []
        for number, source in enumerate([*arguments.sources, *faces]):
            directory = Path(folder) / f"run_{number}"
            directory.mkdir()
            figures = measure(source, arguments.config, ["--model.weights", weights, *further], directory)
            report.row(source.name, list(figures.values()), figures)


def write_faces(array: Path, folder: Path) -> Path:
    """Writes the pictures of scikit-image's ``lfw_subset.npy`` as PNG files in two class folders.

    Args:
        array: The file; its pictures have the shape (200, 25, 25) and values in [0, 1].
        folder: Where the folder ``faces`` is made.
    """
    pictures = np.load(array, allow_pickle=False)
    for number, picture in enumerate(pictures):
        own = folder / "faces" / ("face" if number < len(pictures) // 2 else "other")
        own.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * picture).round().astype(np.uint8)).save(own / f"{number:03d}.png")
    return folder / "faces"


def measure(source: Path, config: str, options: Sequence[str], directory: Path) -> dict[str, str]:
    """Trains and tests on one set; everything that is made lies in an empty directory.

    Raises:
        InputError: A command fails.
    """
    link = directory / source.name
    # What a run keeps beside the data must not make the next one faster.
    link.symlink_to(source.absolute())
    began = time.perf_counter()
    data = ["--data", "ImageFolderDataModule", "--data.root", str(link)]
    trained = _output(["fit", "--config", config, *data, *options], directory)
    tested = _output(["test", "--run", f"lightning_logs/{config}"], directory)
    seconds = time.perf_counter() - began
    return {
        "classes": _found(r"(\d+) classes", trained),
        "seconds": f"{seconds:.0f}",
        "left out": _found(r"left-out accuracy: (.*) \(penalty", trained),
        "test": _found(r"test accuracy: (.*)", tested),
    }


def _output(words: Sequence[str], directory: Path) -> str:
    command = [sys.executable, "-m", "pet_cifar", *words]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"pet-cifar {' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout + done.stderr


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


if __name__ == "__main__":
    run_or_explain(main)
