"""A first layer whose filters are taken from the training pictures: it makes their patches uncorrelated."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pet_cifar.data.datamodule import ImageDataModule


def spread_pictures(data: ImageDataModule, most: int) -> Tensor:
    """At most ``most`` training pictures, spread evenly over the split, where files may be sorted by class.

    Returns:
        uint8, shape (n, C, H, W).
    """
    count = len(data.splits["train"])
    return data.pixels("train").take(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def whiten(convolution: nn.Conv2d, image: Tensor) -> None:
    """Makes the filters of a convolution those that whiten ``image``, and their negatives.

    Args:
        convolution: A convolution with 2 * C * size * size filters of ``size`` x ``size``, as
            `whitening_filters` returns them and their negatives.
        image: Normalized pictures, shape (n, C, H, W).
    """
    filters = whitening_filters(image, convolution.kernel_size[0]).to(convolution.weight.device)
    convolution.weight.data.copy_(torch.cat([filters, -filters]))


def whitening_filters(image: Tensor, size: int, epsilon: float = 5e-4) -> Tensor:
    """Filters that make the patches of pictures uncorrelated, each of variance about one (Jordan, arXiv 2404.00498).

    Args:
        image: Normalized pictures, shape (n, C, H, W).
        size: The side of a patch in pixels.
        epsilon: It is added to the variances, so that what hardly varies is not blown up.

    Returns:
        The covariance matrix's eigenvectors, largest variance first, over the root of their variances: shape
        (C * size * size, C, size, size).
    """
    channels = image.shape[1]
    moment = torch.zeros(channels * size * size, channels * size * size, dtype=torch.float64)
    for some in torch.split(image, 256):  # all patches of 5,000 pictures at once take half a gigabyte
        patches = F.unfold(some, size).transpose(1, 2).reshape(-1, len(moment))
        # This is the second moment, as in the reference: the pictures' mean is subtracted before.
        moment += (patches.T @ patches / len(patches)).double().cpu() * len(some) / len(image)
    variances, vectors = torch.linalg.eigh(moment)
    filters: Tensor = (vectors / torch.sqrt(variances + epsilon)).T.flip(0)
    return filters.to(image).view(-1, channels, size, size)
