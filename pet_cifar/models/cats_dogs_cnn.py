"""The small CNN for cats against dogs of the original Keras exercise."""

from typing import Any

from torch import nn

from pet_cifar.errors import InputError, check_positive
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.dropout import Dropout


class CatsDogsCNN(ImageClassifier):
    """Two convolutions and two dense layers: 4,737,473 parameters for gray pictures of 200 x 200.

    The net of the original Keras exercise, with one addition that has no parameters: dropout before the dense layers.
    ReLU comes after the pooling, which gives the same numbers for a quarter of the work.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels, at least 10.
        dropout: The share of the flattened features that is dropped in training.
        head_lr_factor: The share of ``lr`` that the dense layers learn at. Each output of the first one sums 147,456
            features (at 200 x 200), so that a step of ``adamw``, of the same size for every weight, moves it far: a
            rate that suits the dense layers is too low for the convolutions. Its weight decay shrinks likewise.
        training: The other arguments of `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_channels: int = 1,
        image_size: int = 200,
        dropout: float = 0.0,
        head_lr_factor: float = 1.0,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        if image_size < 10:
            raise InputError(f"image_size is {image_size}; CatsDogsCNN needs pictures of at least 10 pixels")
        check_positive("head_lr_factor", head_lr_factor)
        self.head_lr_factor = head_lr_factor
        side = ((image_size - 2) // 2 - 2) // 2
        self.backbone = nn.Sequential(
            nn.Conv2d(num_channels, 32, 3),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(64 * side * side, 32),
            nn.ReLU(),
            nn.Linear(32, self.num_outputs),
        )
