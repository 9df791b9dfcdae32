"""Shows what the first layer looks for, before and after learning."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningModule, Trainer
from numpy.typing import NDArray

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, warn
from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import convolutions, filters_of, spread
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier


class FirstLayerFilters(ImageCallback):
    """Draws the filters of the first convolution: on the left as they started, on the right as they are now.

    Filters of three channels are drawn in color, all others in gray. A run that goes on keeps the start of the first
    run.

    Args:
        scale: What black and white stand for: the smallest and the largest weight of the whole ``layer``, as in the
            original Keras exercise, or of each ``filter``.
        most: The largest number of filters; they are spread over all of them.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the start and at the end.
            Null is 1, where drawing takes at most a twentieth of the time.
    """

    def __init__(
        self, scale: Literal["layer", "filter"] = "layer", most: int = 64, every_n_epochs: int | None = None
    ) -> None:
        super().__init__(every_n_epochs)
        self._check_at_least_one(most=most)
        self.scale = scale
        self.most = most
        self._initial: NDArray[np.float32] | None = None

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Warns where there is nothing to draw."""
        if not convolutions(module):
            warn(f"no first-layer filters are drawn: {type(module).__name__} has no convolution")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the filters as they are before the first step."""
        layers = convolutions(pl_module)
        if layers and (self._initial is None or trainer.global_step == 0):
            self._initial = filters_of(next(iter(layers.values())))
        super().on_train_start(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Keeps the filters of the start for a run that goes on."""
        return {} if self._initial is None else {"initial": torch.from_numpy(self._initial)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the filters of the first run's start."""
        if "initial" in state_dict:
            self._initial = state_dict["initial"].numpy()

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``first_layer_filters``."""
        layers = convolutions(module)
        if not layers or self._initial is None:
            return
        name, layer = next(iter(layers.items()))
        sheet = filter_sheet(name, filters_of(layer), self._initial, scale=self.scale, most=self.most, when=when)
        board.image("first_layer_filters", sheet)


def filter_sheet(
    name: str,
    now: NDArray[np.float32],
    initial: NDArray[np.float32] | None,
    *,
    scale: Literal["layer", "filter"] = "layer",
    most: int = 64,
    when: str = "now",
) -> PixelArray:
    """Draws the filters of a layer: on the left as they started, where this is known, on the right as they are.

    Args:
        name: The name of the layer, for the title.
        now: The filters, shape (out, in, height, width), of which ``in`` is 1 or 3.
        initial: The same at the start.
        scale: What black and white stand for; see `FirstLayerFilters`.
        most: The largest number of filters; they are spread over all of them.
        when: The time of ``now``, for the title.
    """
    chosen = spread(range(len(now)), most)
    across = 8 if len(chosen) > 16 else 4
    side = max(48, 6 * max(now.shape[2:]))
    count = f"{len(chosen)} of {len(now)} filters, each side scaled by itself"
    parts = [(f"{name}, {when}", count, now)]
    if initial is not None:
        change = float(np.abs(now - initial).mean() / max(float(np.abs(initial).mean()), 1e-12))
        parts = [(f"{name} at the start", count, initial), (when, f"mean change {100 * change:.0f} %", now)]
    sheets = [
        grid(heading, in_rows(filter_shades(filters, scale, chosen), across), side=side, subtitle=subtitle)
        for heading, subtitle, filters in parts
    ]
    return np.concatenate(sheets, 1)


def filter_shades(
    filters: NDArray[np.float32], scale: Literal["layer", "filter"], chosen: Sequence[int]
) -> list[PixelArray]:
    """The chosen filters as pictures of shape (height, width, 3).

    Args:
        filters: The filters, shape (out, in, height, width), of which ``in`` is 1 or 3.
        scale: What black and white stand for; see `FirstLayerFilters`.
        chosen: The numbers of the filters.
    """
    axes = (1, 2, 3) if scale == "filter" else None
    low, high = filters.min(axes, keepdims=True), filters.max(axes, keepdims=True)
    # A constant layer, such as one of zeros, is drawn in gray.
    span = high - low
    shades = np.where(span > 0, (filters - low) / np.where(span > 0, span, 1) * 255, 128).round().astype(np.uint8)
    return [channels_last(shades[number]) for number in chosen]
