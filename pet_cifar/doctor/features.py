"""The features of a pretrained net, by which pictures are compared."""

import numpy as np
import torch
from numpy.typing import NDArray

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.models import TimmClassifier

SMALLEST = 160
"""The side in pixels that smaller pictures are enlarged to, since pretrained nets know larger ones."""
MAX_GIGABYTES = 20.0


def prepare_for_net(data: ImageDataModule) -> None:
    """Has a data module give color pictures of a size that a pretrained net takes; its ``setup`` has not run."""
    data.num_channels = 3
    data.image_size = max(data.image_size, SMALLEST)
    data.augment = None


def features_of(data: ImageDataModule, name: str, weights: str) -> NDArray[np.float32]:
    """Computes the features of all pictures, or takes those that a run or an earlier examination has kept.

    Args:
        data: The data module, whose ``setup`` has run.
        name: The name of the net in timm.
        weights: ``timm``, or the path of a safetensors or pth file.

    Returns:
        The features in the order of ``data.splits``, shape (n, F).

    Raises:
        InputError: The weights cannot be had, or are those of another net.
    """
    net = TimmClassifier(
        num_classes=data.num_classes,
        num_channels=3,
        image_size=data.image_size,
        name=name,
        weights=weights,
        freeze_until="all",
        cache_features=True,
        max_cache_gigabytes=MAX_GIGABYTES,
    ).eval()
    if not torch.cuda.is_available():
        keep_freed_memory()
    data.keep_features(net.feature_extractor(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    try:
        parts = [
            data.features(split).take(np.arange(len(records))).flatten(1).float().numpy()
            for split, records in data.splits.items()
            if records
        ]
    finally:
        data.release_features()
    return np.concatenate(parts)
