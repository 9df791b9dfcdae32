"""Distances are those of scikit-learn's probabilistic components, and a test says which pictures are of no class."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pet_cifar.callbacks import PredictionWriter
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.datasets.digits import DigitsDataModule
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier
from pet_cifar.training import outliers
from pet_cifar.training.metrics import SelectiveRisk
from pet_cifar.training.outliers import OutlierDetector, pooled
from tests.conftest import quiet_trainer

# Lightning 2.6 with torch 2.11 and newer
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated")


def clouds(count: int, features: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, features))
    labels = rng.integers(0, classes, count)
    scales = np.linspace(2, 0.1, features)
    return (centers[labels] + 0.3 * scales * rng.normal(size=(count, features))).astype(np.float32), labels


def fitted(count: int = 400, features: int = 30, classes: int = 3, fraction: float = 0.05) -> OutlierDetector:
    detector = OutlierDetector(classes, features)
    train, labels = clouds(count, features, classes)
    detector.fit(train, labels, clouds(200, features, classes, seed=1)[0], fraction)
    return detector


def test_distances_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "RANK", 8)
    detector = fitted()
    pictures, labels = clouds(400, 30, 3)
    train = pictures / np.linalg.norm(pictures.astype(np.float64), axis=1, keepdims=True)
    means = np.stack([train[labels == label].mean(0) for label in range(3)])
    within = train - means[labels]
    # With the pictures' negatives the mean is 0, which scikit-learn would subtract otherwise.
    precision = PCA(n_components=8, svd_solver="full").fit(np.concatenate([within, -within])).get_precision()
    precision *= (2 * len(within)) / (2 * len(within) - 1)  # It divides by the number less one.
    new = clouds(50, 30, 3, seed=2)[0].astype(np.float64)
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    away = unit[:, None] - means
    expected = np.einsum("nkf,fg,nkg->nk", away, precision, away).min(1)
    np.testing.assert_allclose(detector.distance(torch.from_numpy(new)), expected, rtol=2e-3)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_pictures_of_the_classes_are_refused_as_often_as_asked_for(fraction: float) -> None:
    new = clouds(20_000, 30, 3, seed=3)[0]
    refused = fitted(2000, fraction=fraction)(torch.from_numpy(new)).float().mean().item()
    assert refused == pytest.approx(fraction, abs=0.035)
    foreign = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 30)).astype(np.float32))
    assert fitted(2000, fraction=fraction)(foreign).float().mean() > 0.95


@pytest.mark.parametrize(("count", "features", "classes"), [(10, 100, 2), (5, 3, 2), (300, 70, 60), (4, 1, 2)])
def test_few_pictures_and_rare_classes_do_no_harm(count: int, features: int, classes: int) -> None:
    detector = fitted(count, features, classes)
    assert detector.is_fitted
    assert torch.isfinite(detector.distance(torch.from_numpy(clouds(50, features, classes, seed=4)[0]))).all()


def test_features_with_places_are_averaged_over_them() -> None:
    features = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(pooled(features), features.mean((2, 3)))


def test_coverage_and_risk() -> None:
    metric = SelectiveRisk()
    metric.update(torch.tensor([True, False, False]), torch.tensor([False, False, True]))
    metric.update(torch.tensor([False, False]), torch.tensor([True, True]))
    coverage, risk = metric.compute()
    assert (coverage.item(), risk.item()) == pytest.approx((0.8, 0.25))


# In a run


def net(**options: Any) -> TimmClassifier:
    defaults: dict[str, Any] = {"freeze_until": "all", "cache_features": True, "lr": 0.01}
    torch.manual_seed(0)
    return TimmClassifier(num_classes=10, image_size=32, name="test_convnext", **(defaults | options))


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule(".", image_size=32, batch_size=100, **options)


def run(tmp_path: Path, model: TimmClassifier, data: ImageDataModule, **options: Any) -> Trainer:
    trainer = quiet_trainer(max_epochs=1, callbacks=[PredictionWriter(tmp_path)], **options)
    trainer.fit(model, data)
    return trainer


def test_a_test_tells_which_pictures_are_of_no_class(tmp_path: Path) -> None:
    data, model = digits(), net()
    trainer = run(tmp_path, model, data)
    trainer.test(model, data)
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    with (tmp_path / "test" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    flags = [row["none_of_these"] for row in rows]
    assert set(flags) == {"0", "1"}
    kept = [row for row in rows if row["none_of_these"] == "0"]
    assert metrics["test/coverage"] == pytest.approx(len(kept) / len(rows))
    wrong = sum(row["label"] != row["prediction"] for row in kept)
    assert metrics["test/selective_risk"] == pytest.approx(wrong / len(kept))
    # The same pictures with black and white exchanged are of no class.
    assert model.outliers is not None
    with torch.no_grad():
        image = 1 - data.view("test", np.arange(100), 0)
        assert model.outliers(pooled(model.freezing.before(model.normalized(image)))).float().mean() > 0.9
    trainer.predict(model, data)
    with (tmp_path / "predict" / "predictions.csv").open() as file:
        assert [row["none_of_these"] for row in csv.DictReader(file)] == flags


def test_weights_are_the_same_with_and_without(tmp_path: Path) -> None:
    states = []
    for fraction in (0.04, 0.0):
        model = net(outlier_fraction=fraction)
        run(tmp_path, model, digits(test_fraction=0.8))
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_net_that_asks_no_picture_has_no_column(tmp_path: Path) -> None:
    data, model = digits(test_fraction=0.5), net(outlier_fraction=0.0)
    run(tmp_path, model, data).test(model, data)
    assert "test/coverage" not in json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert "none_of_these" not in (tmp_path / "test" / "predictions.csv").read_text().splitlines()[0]


def test_a_checkpoint_carries_it_and_an_older_one_does_not(tmp_path: Path) -> None:
    data, model = digits(test_fraction=0.5), net()
    trainer = run(tmp_path, model, data)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    loaded = TimmClassifier.load_from_checkpoint(tmp_path / "new.ckpt", map_location="cpu")
    assert model.outliers is not None
    assert loaded.outliers is not None
    assert loaded.outliers.is_fitted
    assert torch.equal(loaded.outliers.means, model.outliers.means)
    older = torch.load(tmp_path / "new.ckpt", weights_only=True)
    del older["outliers"]
    torch.save(older, tmp_path / "old.ckpt")
    loaded = TimmClassifier.load_from_checkpoint(tmp_path / "old.ckpt", map_location="cpu")
    assert loaded.outliers is not None
    assert loaded.outliers.threshold == math.inf
    (found,) = quiet_trainer().test(net(), data, ckpt_path=str(tmp_path / "old.ckpt"))
    assert "test/coverage" not in found
    # A net without kept features takes the checkpoint as well, and leaves this part of it.
    whole = net(cache_features=False)
    (found,) = quiet_trainer().test(whole, data, ckpt_path=str(tmp_path / "new.ckpt"))
    assert "test/coverage" not in found


def test_a_run_that_goes_on_keeps_what_it_has_learned(tmp_path: Path) -> None:
    data, model = digits(test_fraction=0.5), net()
    run(tmp_path, model, data).save_checkpoint(tmp_path / "last.ckpt")
    again = net()
    assert model.outliers is not None
    assert again.outliers is not None
    threshold = model.outliers.threshold.clone()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(again, data, ckpt_path=str(tmp_path / "last.ckpt"))
    assert torch.equal(again.outliers.threshold, threshold)


def test_pictures_and_nets_without_features_are_not_asked() -> None:
    model = net()
    zeros = torch.zeros(2, dtype=torch.long)
    assert model.is_outlier(FeatureBatch(torch.zeros(2, 64), zeros, zeros, 0)) is None
    assert model.is_outlier(Batch(torch.zeros(2, 3, 32, 32), zeros, zeros, torch.zeros(2, 1), 0)) is None
    assert net(cache_features=False).outliers is None


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=f"outlier_fraction is {fraction}"):
        net(outlier_fraction=fraction)
