"""A trained net together with all that a picture goes through before it, as one module that can be exported."""

import torch
from torch import Tensor, nn

from pet_cifar.training.classifier import ImageClassifier

REDUCING_GAP = 3
"""Up to this many times the net's size a picture is resized at once; a larger one is first made smaller by a factor."""


class FromPixels(nn.Module):
    """Answers to pictures in the net's size: uint8, shape (B, C, S, S).

    It gives the probabilities, shape (B, num_classes), and for a net that knows it whether each picture is of none of
    the classes, bool, shape (B,).
    """

    def __init__(self, net: ImageClassifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The answers."""
        probabilities, outliers = self.net.predict_pictures(pixels.float() / 255)
        return (probabilities,) if outliers is None else (probabilities, outliers)


class FromPicture(nn.Module):
    """Answers to one picture of any size: uint8, shape (H, W, 3), red, green and blue.

    It gives what `FromPixels` gives, without the first dimension.
    """

    def __init__(self, net: ImageClassifier) -> None:
        super().__init__()
        self.inner = FromPixels(net)
        self.channels, self.size = net.picture_shape

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """The answers."""
        pixels = resize(gray(picture) if self.channels == 1 else picture.float(), self.size)
        return tuple(one[0] for one in self.inner(pixels.permute(2, 0, 1)[None]))


def gray(picture: Tensor) -> Tensor:
    """The luminance of a picture as Pillow rounds it (ITU-R 601-2 in 16 bits), floats of shape (H, W, 1)."""
    red, green, blue = picture.int().unbind(2)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).float()[..., None]


def resize(picture: Tensor, size: int) -> Tensor:
    """Resizes a picture as `fit_image` does, by products of matrices, which every runtime has.

    Pillow's bilinear filter takes the mean over an area where it makes a picture smaller. Where that is more than
    `REDUCING_GAP` times, Pillow first takes means over whole blocks and rounds them. That rounding is left out here, so
    that a pixel may differ by a level or two.

    Args:
        picture: Whole numbers from 0 to 255, floats of shape (H, W, C).
        size: The side in pixels.

    Returns:
        The same, shape (size, size, C).
    """
    wide = torch.floor(torch.matmul(_weights(picture[0, :, 0], size), picture) + 0.5)
    height, _, channels = wide.shape
    high = torch.matmul(_weights(picture[:, 0, 0], size), wide.reshape(height, size * channels))
    return torch.floor(high + 0.5).reshape(size, size, channels)


def _weights(line: Tensor, size: int) -> Tensor:
    """How much each pixel of a line counts in each pixel of the resized line, shape (size, length)."""
    # All lengths are tensors, so that an exported program takes lines of any length.
    pixel = torch.ones_like(line).cumsum(0) - 1
    length = pixel[-1] + 1
    factor = torch.floor((length + 0.5) / (REDUCING_GAP * size)).clamp(min=1)
    block = torch.floor((pixel + 0.5) / factor)
    in_block = torch.minimum(factor, length - block * factor)
    scale = length / factor / size
    center = (torch.arange(size, dtype=torch.float32, device=line.device) + 0.5)[:, None] * scale
    weight = (1 - ((block + 0.5 - center) / scale.clamp(min=1)).abs()).clamp(min=0) / in_block
    return weight / weight.sum(1, keepdim=True)
