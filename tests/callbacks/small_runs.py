"""Runs of a few steps on handwritten digits, and what is in their drawings."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from pet_cifar.callbacks import Board, CustomScalars, HyperParameters
from pet_cifar.callbacks.images.base import ImageCallback
from pet_cifar.callbacks.images.drawing import PixelArray
from pet_cifar.data import DigitsDataModule, ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.models import ResidualCNN
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events
from tests.conftest import quiet_trainer

IMAGE_CALLBACKS = [kind for kind in ImageCallback.__subclasses__() if kind.__module__.startswith("pet_cifar.")]


def digits(size: int = 16, **options: Any) -> DigitsDataModule:
    return DigitsDataModule(image_size=size, batch_size=101, augment=Augment(flip=True, translate=2), **options)


def small(**options: Any) -> ResidualCNN:
    return ResidualCNN(**{"image_size": 16, "widths": [8, 16], "lr": 0.01, **options})


def layer(model: ImageClassifier, name: str) -> Any:
    return model.get_submodule(name)


def run(
    model: ImageClassifier, data: ImageDataModule, callbacks: Sequence[Callback], *, epochs: int = 2, **options: Any
) -> tuple[Trainer, Path]:
    """Trains for a few steps; returns the trainer and the run directory."""
    logger = TensorBoardLogger("logs", "run")
    options = {
        "limit_train_batches": 3,
        "logger": logger,
        "max_epochs": epochs,
        "callbacks": list(callbacks),
        **options,
    }
    trainer = quiet_trainer(**options)
    trainer.fit(model, data)
    return trainer, Path(logger.log_dir)


def every_callback(every_n_epochs: int = 1) -> list[Callback]:
    """All image callbacks that there are, and the two others that write into TensorBoard."""
    images = [kind() for kind in IMAGE_CALLBACKS]
    for callback in images:
        if callback.every_n_epochs is None:
            callback.every_n_epochs = every_n_epochs
    return [*images, CustomScalars(), HyperParameters()]


def groups(directory: Path) -> set[str]:
    """The parts before the slash of the tags of all pictures, which TensorBoard shows as groups."""
    return {tag.partition("/")[0] for tag in Events(directory).images}


@functools.cache
def every_group() -> frozenset[str]:
    """The groups of an ordinary run, in which every image callback must write something."""
    board = Board()
    wrote: set[type[ImageCallback]] = set()

    def watch(callback: ImageCallback) -> ImageCallback:
        draw = callback.draw

        def watched(*arguments: Any) -> None:
            before = board.megabytes
            draw(*arguments)
            if board.megabytes > before:
                wrote.add(type(callback))

        callback.draw = watched  # type: ignore[assignment]
        return callback

    _, directory = run(small(), digits(), [board, *(watch(kind()) for kind in IMAGE_CALLBACKS)])
    assert wrote == set(IMAGE_CALLBACKS)
    return frozenset(groups(directory))


class RecordingBoard(Board):
    """Keeps the arrays that are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, list[PixelArray]] = {}

    def image(self, tag: str, picture: PixelArray) -> None:
        self.drawn.setdefault(tag, []).append(picture)
        super().image(tag, picture)


def holds(sheet: PixelArray, picture: PixelArray, tolerance: int = 0) -> bool:
    """Whether the picture is somewhere on the sheet, with values that differ by at most ``tolerance``."""
    wanted = picture.astype(np.int16)
    windows = np.lib.stride_tricks.sliding_window_view(sheet.astype(np.int16), picture.shape)
    corners = (np.abs(windows[..., 0, 0, :] - wanted[0, 0]) <= tolerance).all(-1)
    return any((np.abs(windows[tuple(place)] - wanted) <= tolerance).all() for place in np.argwhere(corners))
