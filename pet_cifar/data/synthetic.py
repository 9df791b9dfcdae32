"""Makes synthetic pictures whose class can be seen, with which a dataset and its configs run without their data."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def synthetic_picture(label: int, number: int, size: int) -> NDArray[np.uint8]:
    """Returns a noisy color picture whose stripes tell its class, always the same one for the same arguments.

    Args:
        label: The number of the class.
        number: The number of the picture within its class.
        size: The side in pixels.

    Returns:
        uint8, shape (size, size, 3).
    """
    pixels = np.random.default_rng([label, number]).normal(100, 25, (size, size, 3))
    pixels[:, :: 2 + label % 5] += 60
    pixels[:: 2 + label // 5] -= 60
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_pictures(folder: Path, label: int, count: int, size: int, *, first: int = 0, suffix: str = ".png") -> None:
    """Makes a folder of synthetic pictures of one class, ``0.png``, ``1.png`` and so on.

    Args:
        folder: The folder, which must not exist.
        label: The number of the class.
        count: The number of pictures.
        size: The side in pixels.
        first: The number of the first picture within its class. With another one the pictures are other ones.
        suffix: The end of the files' names, which decides their format.
    """
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(synthetic_picture(label, first + number, size)).save(folder / f"{number}{suffix}")
