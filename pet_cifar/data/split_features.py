"""The kept features of all splits, and the augmented views of the training pictures that they are computed from."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.augment import RANDOM_NUMBERS, Augment
from pet_cifar.data.manifest import Split
from pet_cifar.data.pixels.feature_cache import FeatureExtractor, store_features
from pet_cifar.data.pixels.feature_files import StoredFeatures
from pet_cifar.data.root import state_directory
from pet_cifar.data.split_pixels import SplitPixels


class SplitFeatures:
    """Computes the features of each split at its first use.

    The training split has several views where its pictures are augmented; the epochs use them in turn.

    Args:
        extractor: Computes the features, and says what they depend on.
        pixels: Holds the pictures.
        augment: Makes the views; with None there is one view, the pictures themselves.
        seed: Decides the random numbers of the views, so that every run has the same.
        root: The data's folder, beside which the features are kept.
        batch_size: The number of pictures that are computed at a time.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        pixels: SplitPixels,
        augment: Augment | None,
        *,
        seed: int,
        root: Path,
        batch_size: int,
    ) -> None:
        self.extractor = extractor
        self.pixels = pixels
        self.augment = augment
        self.seed = seed
        self.batch_size = batch_size
        # View 0 is the pictures themselves.
        self.views = range(1, extractor.views + 1) if augment else range(1)
        self._directory = state_directory(root) / "features"
        self._opened: dict[Split, StoredFeatures] = {}

    def open(self, split: Split) -> StoredFeatures:
        """The features of a split by row number; the first call computes those that no run has computed before."""
        if split not in self._opened:
            key = self.pixels.content_key(split)
            views = self.views if split == "train" else range(1)
            with self.pixels.opening(split) as pixels:
                self._opened[split] = store_features(
                    self.extractor,
                    lambda rows, place: pixels.take(rows),
                    len(self.pixels.splits[split]),
                    [f"{key} {self.seed} {number} {self.augment}" if number else key for number in views],
                    directory=self._directory,
                    split=split,
                    batch_size=self.batch_size,
                    prepare=lambda taken, rows, place: self._view(split, taken, rows, views[place]),
                    in_use=[file for opened in self._opened.values() for file in opened.files],
                    planned=sum(
                        len(records) * (len(self.views) if name == "train" else 1)
                        for name, records in self.pixels.splits.items()
                    ),
                )
        return self._opened[split]

    def _view(self, split: Split, taken: Tensor, rows: NDArray[np.int64], number: int) -> Tensor:
        count, device = len(self.pixels.splits[split]), self.pixels.device
        return _augmented(taken, rows, number, self.augment, self.seed, count=count, device=device)

    def view_of(self, epoch: int) -> int:
        """The number of the view that an epoch, counted from 0, trains on."""
        return self.views[epoch % len(self.views)]


def augmented_view(
    pixels: SplitPixels, split: Split, rows: NDArray[np.int64], number: int, augment: Augment | None, seed: int
) -> Tensor:
    """One view of pictures, which is the same in every run.

    Args:
        pixels: Holds the pictures.
        split: The split that ``rows`` count in.
        rows: The numbers of the pictures, shape (n,).
        number: 0 for the pictures themselves; every other number is another augmentation of them.
        augment: Changes the pictures; None leaves them as they are.
        seed: Decides the random numbers, together with ``number``.

    Returns:
        Floats in [0, 1] on the device of ``pixels``, shape (n, C, H, W).
    """
    taken, count = pixels.open(split).take(rows), len(pixels.splits[split])
    return _augmented(taken, rows, number, augment, seed, count=count, device=pixels.device)


def _augmented(
    taken: Tensor,
    rows: NDArray[np.int64],
    number: int,
    augment: Augment | None,
    seed: int,
    *,
    count: int,
    device: torch.device,
) -> Tensor:
    """The view of pictures that were taken out of a split of ``count``; see `augmented_view`."""
    image = taken.to(device).float().div_(255)
    if not number or augment is None:
        return image
    uniform = np.random.default_rng([seed, number]).random((count, RANDOM_NUMBERS), np.float32)
    return augment(image, torch.from_numpy(uniform[rows]).to(device))
