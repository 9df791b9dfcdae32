"""A small inception net.

Blocks as in Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842), figure 2(b): four parallel branches,
1x1, 1x1 then 3x3, 1x1 then 5x5, and a 3x3 max-pooling then 1x1, concatenated. Deviations: batch norm after every
convolution (Ioffe and Szegedy, arXiv 1502.03167), no auxiliary classifiers, and the net's own, smaller widths; it
halves the resolution right after the first convolution, so that a picture costs less than in the plain net.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pet_cifar.errors import InputError, check_stages
from pet_cifar.training.classifier import ImageClassifier


def _convolution(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class InceptionBlock(nn.Module):
    """Four parallel branches over the same input, concatenated: (B, C_in, H, W) to (B, width, H, W).

    As in the paper's table 1, half of the output comes from the 3x3 branch, a quarter from the 1x1 branch and an
    eighth from each of the others; the reductions before the large filters are 3/4 and 1/4 of what follows them.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        eighth = width // 8
        self.branches = nn.ModuleList(
            [
                _convolution(in_channels, 2 * eighth, 1),
                nn.Sequential(_convolution(in_channels, 3 * eighth, 1), _convolution(3 * eighth, 4 * eighth, 3)),
                nn.Sequential(
                    _convolution(in_channels, max(1, eighth // 2), 1),
                    _convolution(max(1, eighth // 2), eighth, 5),
                ),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _convolution(in_channels, eighth, 1)),
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        """The branches' outputs, concatenated along the channels."""
        return torch.cat([branch(features) for branch in self.branches], 1)


class InceptionCNN(ImageClassifier):
    """A convolution, then a pooling and inception blocks for each width, then the mean over all places.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels, at least 8 for three widths.
        widths: The channels of each stage, multiples of 8; null takes 96, 192, 384. The resolution halves before each.
        blocks: The number of inception blocks in a stage.
        training: The other arguments of `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 3,
        image_size: int = 32,
        widths: list[int] | None = None,
        blocks: int = 2,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        widths = [96, 192, 384] if widths is None else widths
        check_stages(widths, blocks)
        if image_size < 2 ** len(widths):
            raise InputError(
                f"image_size is {image_size}; InceptionCNN halves it {len(widths)} times and needs at least "
                f"{2 ** len(widths)} pixels"
            )
        if any(width % 8 for width in widths):
            raise InputError(f"widths are {widths}; InceptionCNN divides each by 8")
        layers: list[nn.Module] = [_convolution(num_channels, widths[0] // 2, 3)]
        previous = widths[0] // 2
        for width in widths:
            layers.append(nn.MaxPool2d(2))
            for _ in range(blocks):
                layers.append(InceptionBlock(previous, width))
                previous = width
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(previous, self.num_outputs))
