"""Augmentation of whole batches, on their device, from random numbers that the loader supplies."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pet_cifar.errors import InputError, check_choice

RANDOM_NUMBERS = 8
"""The loader draws this many uniform numbers for each picture."""


@dataclass(frozen=True)
class Augment:
    """Changes every training picture at random, each differently; a pure function of the picture and its numbers.

    Args:
        flip: Mirrors left and right with probability one half. ``alternating`` draws once for each picture and mirrors
            it in every second epoch, so that two epochs see both of its sides (Jordan, arXiv 2404.00498).
        translate: The largest shift in pixels, each way; the mirrored border fills the gap.
        crop: The smallest side of a random square crop as a share of the picture, which is scaled back up; 1 is off.
        brightness: The largest relative change of all values, such as 0.2.
        contrast: The largest relative change of the distance from the picture's mean.
        saturation: The largest relative change of the distance from gray; it does nothing to gray pictures.
        cutout: The side in pixels of a square that is made gray, anywhere inside the picture (DeVries and Taylor, arXiv
            1708.04552, whose square may also lie half outside).
    """

    flip: bool | Literal["alternating"] = False
    translate: int = 0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        check_choice("flip", self.flip, (False, True, "alternating"))
        if self.translate < 0:
            raise InputError(f"translate is {self.translate}; it is a number of pixels, 0 or more")
        if self.cutout < 0:
            raise InputError(f"cutout is {self.cutout}; it is a number of pixels, 0 or more")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is {self.crop}; it is a share of the side, above 0 and at most 1")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it is between 0 and 1")

    def __call__(self, image: Tensor, uniform: Tensor) -> Tensor:
        """Augments one batch.

        Args:
            image: Floats in [0, 1], shape (B, C, H, W).
            uniform: Floats in [0, 1), shape (B, `RANDOM_NUMBERS`), on the same device.

        Returns:
            Floats in [0, 1], shape (B, C, H, W); the input itself where everything is off.
        """
        uniform = uniform.to(image.dtype)
        mirror, right, down, *rest = uniform.unbind(1)
        if self.crop < 1:
            image = self._crop(image, mirror, right, down, scale=rest[3])
        elif self.flip or self.translate:
            image = self._shift(image, mirror, right, down)
        image = self._jitter(image, *rest[:3])
        return self._cut_out(image, rest[4]) if self.cutout else image

    def _shift(self, image: Tensor, mirror: Tensor, right: Tensor, down: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.translate >= min(height, width):
            raise InputError(f"augment.translate is {self.translate}, more than a picture of {height} x {width} holds")
        rows = self._source(height, down)
        columns = self._source(width, right)
        if self.flip:
            columns = torch.where(mirror[:, None] < 0.5, width - 1 - columns, columns)
        shape = image.shape
        image = image.gather(2, rows[:, None, :, None].expand(shape)) if self.translate else image
        return image.gather(3, columns[:, None, None, :].expand(shape))

    def _source(self, size: int, shift: Tensor) -> Tensor:
        """The row (or column) that each one of the result comes from, mirrored at the border; shape (B, size)."""
        offset = (shift * (2 * self.translate + 1)).long() - self.translate
        index = (torch.arange(size, device=shift.device) + offset[:, None]).abs()
        return size - 1 - (size - 1 - index).abs()

    def _crop(self, image: Tensor, mirror: Tensor, right: Tensor, down: Tensor, scale: Tensor) -> Tensor:
        side = self.crop + (1 - self.crop) * scale
        shift = 2 * self.translate / image.shape[-1]
        reach = 1 - side + shift
        sign = torch.where(mirror < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(side)
        theta = torch.zeros(len(image), 2, 3, dtype=image.dtype, device=image.device)
        theta[:, 0, 0], theta[:, 0, 2] = side * sign, (2 * right - 1) * reach
        theta[:, 1, 1], theta[:, 1, 2] = side, (2 * down - 1) * reach
        grid = torch.nn.functional.affine_grid(theta, list(image.shape), align_corners=False)
        image = torch.nn.functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
        # The weights of four neighbors add up to a little above 1.
        return image.clamp(0, 1)

    def _jitter(self, image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
        def factor(strength: float, number: Tensor) -> Tensor:
            return (1 + strength * (2 * number - 1)).view(-1, 1, 1, 1)

        if self.brightness:
            image = image * factor(self.brightness, brightness)
        if self.contrast:
            mean = image.mean((1, 2, 3), keepdim=True)
            image = mean + (image - mean) * factor(self.contrast, contrast)
        if self.saturation and image.shape[1] == 3:
            gray = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
            image = gray + (image - gray) * factor(self.saturation, saturation)
        return image.clamp(0, 1) if self.brightness or self.contrast or self.saturation else image

    def _cut_out(self, image: Tensor, where: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.cutout > min(height, width):
            raise InputError(f"augment.cutout is {self.cutout}, more than a picture of {height} x {width} holds")
        across = width - self.cutout + 1
        # One number gives both coordinates; a float32 has room for the places in a picture of 4,000 x 4,000.
        place = (where * (height - self.cutout + 1) * across).long()
        top, left = place // across, place % across
        rows = torch.arange(height, device=image.device) - top[:, None]
        columns = torch.arange(width, device=image.device) - left[:, None]
        inside = [(axis >= 0) & (axis < self.cutout) for axis in (rows, columns)]
        return image.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5)
