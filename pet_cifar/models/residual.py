"""A small residual net.

Blocks as in He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), figure 2 and section 3.3:
two 3x3 convolutions, each with batch norm, around a shortcut that is a 1x1 projection where the shape changes (their
option B). Deviations: the net halves the resolution by max-pooling right after the first convolution and by pooling
before a stage instead of by strides, and is wide and shallow where theirs is narrow and deep; so that a picture costs
less than in the plain net. With ``transitions`` it looks at the full resolution twice, and all its shortcuts are
identities, as in the ResNet-9 of Page, "How to Train Your ResNet" (myrtle.ai, 2018), at a third of its widths.
"""

from typing import Any

from torch import Tensor, nn

from pet_cifar.errors import InputError, check_stages
from pet_cifar.training.classifier import ImageClassifier


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; (B, C_in, H, W) to (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """The block's output."""
        out: Tensor = self.activation(self.residual(features) + self.shortcut(features))
        return out


def _convolution(in_channels: int, out_channels: int, *, pools: bool) -> list[nn.Module]:
    layers = [nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)]
    # Pooling before the ReLU gives the same numbers for a quarter of the work.
    return [*layers, *([nn.MaxPool2d(2)] if pools else []), nn.ReLU(inplace=True)]


class ResidualCNN(ImageClassifier):
    """A convolution, then a pooling and residual blocks for each width, then the mean over all places.

    With ``transitions`` it is a convolution, then for each width a convolution, a pooling and residual blocks.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels, at least 8 for three widths.
        widths: The channels of each stage; null takes 64, 128, 256. The resolution halves before each.
        blocks: The number of residual blocks in a stage.
        transitions: Whether a 3x3 convolution with batch norm brings the channels to a stage's width, and a pooling
            follows it, before its blocks. The first convolution then has a quarter of the first width.
        training: The other arguments of `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 3,
        image_size: int = 32,
        widths: list[int] | None = None,
        blocks: int = 1,
        transitions: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        widths = [64, 128, 256] if widths is None else widths
        check_stages(widths, blocks)
        if image_size < 2 ** len(widths):
            raise InputError(
                f"image_size is {image_size}; ResidualCNN halves it {len(widths)} times and needs at least "
                f"{2 ** len(widths)} pixels"
            )
        previous = max(1, widths[0] // 4) if transitions else widths[0]
        layers = _convolution(num_channels, previous, pools=not transitions)
        for number, width in enumerate(widths):
            if transitions:
                layers += _convolution(previous, width, pools=True)
                previous = width
            elif number:
                layers.append(nn.MaxPool2d(2))
            for _ in range(blocks):
                layers.append(ResidualBlock(previous, width))
                previous = width
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(previous, self.num_outputs))
