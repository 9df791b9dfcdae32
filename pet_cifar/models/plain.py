"""The plain CNN for CIFAR-10 of the original Keras exercise."""

from typing import Any

from torch import nn

from pet_cifar.errors import check_positive
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.dropout import Dropout


class PlainCNN(ImageClassifier):
    """Four convolutions at full resolution and one dense layer: 1,442,698 trained parameters at 32 x 32 x 3.

    Batch norm keeps 256 running statistics beside them. The convolutions start as in He et al., "Delving Deep into
    Rectifiers" (arXiv 1502.01852), since nothing normalizes between them.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels.
        dropout: The share of the flattened features that is dropped in training.
        head_lr_factor: The share of ``lr`` that the dense layer learns at. Each of its outputs sums 131,072 features
            (at 32 x 32), so that a step of ``adamw``, of the same size for every weight, moves it far. Its weight
            decay shrinks likewise.
        training: The other arguments of `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 3,
        image_size: int = 32,
        dropout: float = 0.5,
        head_lr_factor: float = 1.0,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        check_positive("head_lr_factor", head_lr_factor)
        self.head_lr_factor = head_lr_factor
        self.backbone = nn.Sequential(
            nn.Conv2d(num_channels, 32, 5, padding="same"),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, padding="same"),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding="same"),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 3, padding="same"),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(128),
        )
        self.head = nn.Sequential(
            # Dropout comes second, so that its mask lies in memory as the dense layer reads it.
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(128 * image_size * image_size, self.num_outputs),
        )
        for layer in self.backbone:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
