"""Test-time augmentation: a net's logits averaged over a few views of each picture."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

TestViews = Literal["one", "mirror", "shift"]


def averaged(net: Callable[[Tensor], Tensor], image: Tensor, views: TestViews) -> Tensor:
    """Averages a net's logits over views of each picture.

    Args:
        net: The function from pictures to logits.
        image: The pictures, shape (B, C, H, W).
        views: ``one`` is each picture as it is; ``mirror`` is the picture and its mirror image. ``shift`` adds these
            two moved by one pixel to the lower right and to the upper left, with a mirrored border; the four
            together weigh as much as the first two (Jordan, arXiv 2404.00498).

    Returns:
        Logits of shape (B, num_outputs).
    """
    if views == "one":
        return net(image)

    def both(image: Tensor) -> Tensor:
        return (net(image) + net(image.flip(-1))) / 2

    if views == "mirror":
        return both(image)
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), "reflect")
    moved = both(padded[..., :height, :width]) + both(padded[..., 2:, 2:])
    return both(image) / 2 + moved / 4
