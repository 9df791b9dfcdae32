"""What a run needs to learn which pictures are of none of the classes; test_outliers.py has runs that learn it."""

import pytest
import torch

from pet_cifar.data import DigitsDataModule
from pet_cifar.data.pixels.feature_cache import FeatureExtractor
from pet_cifar.training.outlier_step import learn_outliers
from pet_cifar.training.outliers import OutlierDetector


def digits_with_features() -> DigitsDataModule:
    data = DigitsDataModule(".", image_size=8, test_fraction=0.5)
    data.prepare_data()
    data.setup("fit")
    data.keep_features(FeatureExtractor(lambda image: image[:, 0].flatten(1), lambda: "pixels", 1, 1.0))
    return data


def test_it_is_the_same_on_every_process() -> None:
    data = digits_with_features()
    one, other = OutlierDetector(10, (64,)), OutlierDetector(10, (64,))
    learn_outliers(one, data, 0.1)
    learn_outliers(other, data, 0.1)
    assert one.is_fitted
    assert all(torch.equal(value, other.content()[name]) for name, value in one.content().items())
    val = torch.cat([features for _, features in data.features("val").chunks()])
    assert 0 < one(val).is_outlier.float().mean() <= 0.1


def test_without_validation_pictures_nothing_is_called_an_outlier(caplog: pytest.LogCaptureFixture) -> None:
    data = digits_with_features()
    data.splits = {**data.splits, "val": []}
    detector = OutlierDetector(10, (64,))
    with caplog.at_level("INFO"):
        learn_outliers(detector, data, 0.1)
    assert not detector.is_fitted
    assert "validation" in caplog.records[-1].message
