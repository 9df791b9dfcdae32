"""The step of a run in which a net learns which pictures are of none of the classes."""

import torch
from lightning.pytorch.utilities import rank_zero_info

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.outliers import OutlierDetector


def learn_outliers(detector: OutlierDetector, data: ImageDataModule, fraction: float) -> None:
    """Fits a detector to the kept features of the training pictures, in all views, and of the validation pictures.

    It comes to the same on every process, and in a run that goes on, so that nothing is exchanged.

    Args:
        detector: Is fitted.
        data: The data module, which keeps features.
        fraction: The share of the validation pictures that may be called outliers, in (0, 1).
    """
    count = len(data.splits["val"])
    if not count:
        rank_zero_info("without validation pictures, no picture is called one of none of the classes")
        return
    labels = torch.from_numpy(data.labels("train"))
    scores = detector.fit(
        ((features, labels[rows % len(labels)]) for rows, features in data.features("train").chunks()),
        (features for _, features in data.features("val").chunks()),
        fraction,
    )
    few = (
        f"; {count} are too few to set that share, which is about 1 in {count + 1}" if count + 1 < 1 / fraction else ""
    )
    rank_zero_info(
        f"none of these: pictures that are farther from all classes than most validation pictures will be refused, as "
        f"{int(scores.is_outlier.sum())} of these {count:,} would be (outlier_fraction {fraction:g}){few}"
    )
