"""Batches of loaders that are not of this package, such as torch's own, as the nets of this package take them."""

import torch
from torch import Tensor

from pet_cifar.data.augment import RANDOM_NUMBERS
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.errors import InputError


def as_batch(batch: object, num_channels: int, num_classes: int, *, labeled: bool = True) -> Batch | FeatureBatch:
    """Makes a `Batch` of what an ordinary loader gives; a batch of this package stays as it is.

    Args:
        batch: ``(x, y)``, or ``(x,)`` or ``x`` where no labels are needed. The pictures ``x`` have the shape
            (B, C, H, W) and are uint8, or floats as the net's mean and standard deviation normalize them; ``y`` are
            whole numbers of shape (B,).
        num_channels: The channels that the net takes.
        num_classes: The classes that the net tells apart.
        labeled: Whether labels are needed; without them all are -1.

    Raises:
        InputError: It is something else.
    """
    if isinstance(batch, Batch | FeatureBatch):
        return batch
    parts = [batch] if isinstance(batch, Tensor) else list(batch) if isinstance(batch, tuple | list) else []
    if not parts or not isinstance(parts[0], Tensor) or (labeled and len(parts) < 2):
        wanted = "(x, y)" if labeled else "x or (x, y)"
        raise InputError(f"the loader's batch is {_described(batch)}; give {wanted}, tensors of pictures and labels")
    image = _checked_pictures(parts[0], num_channels)
    label = image.new_full((len(image),), -1, dtype=torch.long)
    if labeled:
        label = _checked_labels(parts[1], len(image), num_classes).to(image.device)
    row = torch.arange(len(image), device=image.device)
    return Batch(image, label, row, image.new_zeros(len(image), RANDOM_NUMBERS), 0)


def _checked_pictures(image: Tensor, num_channels: int) -> Tensor:
    if image.ndim != 4 or image.shape[1] != num_channels or not (image.is_floating_point() or _is_byte(image)):
        raise InputError(
            f"the loader's pictures are {_described(image)}; give floats or uint8 of shape (B, {num_channels}, H, W), "
            f"or a net with another num_channels than {num_channels}"
        )
    return image.float().div_(255) if _is_byte(image) else image


def _is_byte(image: Tensor) -> bool:
    return image.dtype == torch.uint8


def _checked_labels(label: object, count: int, num_classes: int) -> Tensor:
    if not isinstance(label, Tensor) or label.shape != (count,) or label.is_floating_point() or label.is_complex():
        raise InputError(
            f"the loader's labels are {_described(label)}; give the number of the class of each picture, whole numbers "
            f"of shape ({count},)"
        )
    label = label.long()
    # On a GPU this question would make every step wait; there the loss finds such labels.
    if label.device.type == "cpu" and count and (label.min() < 0 or label.max() >= num_classes):
        raise InputError(
            f"the loader's labels go from {int(label.min())} to {int(label.max())}, but the net has {num_classes} "
            f"classes, from 0 to {num_classes - 1}; give another num_classes or other labels"
        )
    return label


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return f"a {type(value).__name__}"
