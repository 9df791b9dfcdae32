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
from lightning.pytorch.callbacks import EMAWeightAveraging
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA

from pet_cifar.callbacks import PredictionWriter
from pet_cifar.data.augment import Augment
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.datasets.digits import DigitsDataModule
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier, VGG16Classifier
from pet_cifar.training import outliers
from pet_cifar.training.metrics import SelectiveRisk
from pet_cifar.training.outliers import OutlierDetector
from tests.conftest import quiet_trainer

# Lightning 2.6 with torch 2.11 and newer
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated")


def clouds(count: int, features: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, features))
    labels = rng.integers(0, classes, count)
    scales = np.linspace(2, 0.1, features)
    return (centers[labels] + 0.3 * scales * rng.normal(size=(count, features))).astype(np.float32), labels


def in_chunks(
    features: NDArray[np.float32], labels: NDArray[np.int64], size: int = 100
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    tensors = torch.from_numpy(features), torch.from_numpy(labels)
    return list(zip(*(torch.split(tensor, size) for tensor in tensors), strict=True))


def fitted(
    count: int = 400, features: int = 30, classes: int = 3, fraction: float = 0.05, size: int = 100
) -> OutlierDetector:
    detector = OutlierDetector(classes, (features,))
    val = [chunk for chunk, _ in in_chunks(*clouds(200, features, classes, seed=1), size)]
    detector.fit(in_chunks(*clouds(count, features, classes), size), val, fraction)
    return detector


def unit(features: NDArray[np.float32]) -> NDArray[np.float64]:
    values = features.astype(np.float64)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_distances_are_those_of_scikit_learns_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "RANK", 8)
    detector = fitted()
    pictures, labels = clouds(400, 30, 3)
    train = unit(pictures)
    means = np.stack([train[labels == label].mean(0) for label in range(3)])
    within = train - means[labels]
    # With the pictures' negatives the mean is 0, which scikit-learn would subtract otherwise.
    precision = PCA(n_components=8, svd_solver="full").fit(np.concatenate([within, -within])).get_precision()
    precision *= (2 * len(within)) / (2 * len(within) - 1)  # It divides by the number less one.
    new = clouds(50, 30, 3, seed=2)[0]
    away = unit(new)[:, None] - means
    expected = np.einsum("nkf,fg,nkg->nk", away, precision, away).min(1)
    np.testing.assert_allclose(detector.distance(torch.from_numpy(new)), expected, rtol=2e-3)


def test_with_all_directions_distances_are_those_of_the_whole_covariance() -> None:
    pictures, labels = clouds(400, 12, 3)
    train = unit(pictures)
    means = np.stack([train[labels == label].mean(0) for label in range(3)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(train - means[labels])
    new = clouds(50, 12, 3, seed=2)[0]
    expected = np.min([covariance.mahalanobis(unit(new) - mean) for mean in means], axis=0)
    np.testing.assert_allclose(fitted(400, 12).distance(torch.from_numpy(new)), expected, rtol=2e-3)


def test_few_pictures_span_no_space_of_their_own() -> None:
    # Of 40 pictures the covariance of 500 features is known along a few directions; it is like one of many pictures.
    new = torch.from_numpy(clouds(300, 500, 2, seed=5)[0])
    few, many = fitted(40, 500, 2).distance(new), fitted(4000, 500, 2).distance(new)
    ratio = few / many
    assert 0.2 < ratio.median() < 5
    assert (ratio / ratio.median() - 1).abs().quantile(0.9) < 0.5


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_change_nothing(size: int) -> None:
    one, other = fitted(size=100).content(), fitted(size=size).content()
    for name in ("means", "variances", "rest", "threshold"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_pictures_of_the_classes_are_refused_as_often_as_asked_for(fraction: float) -> None:
    new = clouds(20_000, 30, 3, seed=3)[0]
    detector = fitted(2000, fraction=fraction)
    assert detector(torch.from_numpy(new)).is_outlier.float().mean().item() == pytest.approx(fraction, abs=0.035)
    foreign = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 30)).astype(np.float32))
    assert detector(foreign).is_outlier.float().mean() > 0.95


@pytest.mark.parametrize(
    ("count", "features", "classes"), [(10, 100, 2), (5, 3, 2), (300, 70, 60), (4, 1, 2), (400, 20, 1000)]
)
def test_few_pictures_and_rare_classes_do_no_harm(count: int, features: int, classes: int) -> None:
    detector = fitted(count, features, classes)
    distance, is_outlier = detector(torch.from_numpy(clouds(50, features, classes, seed=4)[0]))
    assert torch.isfinite(distance).all()
    assert torch.isfinite(detector.threshold)
    assert torch.equal(is_outlier, distance > detector.threshold)


def test_one_picture_of_each_of_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(1000, 20)).astype(np.float32)
    detector = OutlierDetector(1000, (20,))
    val = torch.from_numpy(train + 0.01 * rng.normal(size=train.shape).astype(np.float32))
    detector.fit(in_chunks(train, np.arange(1000)), [val], 0.05)
    assert detector(torch.from_numpy(train)).is_outlier.sum() == 0
    assert detector(-torch.from_numpy(train)).is_outlier.float().mean() > 0.95


def test_features_that_are_not_numbers_are_outliers() -> None:
    distance, is_outlier = fitted()(torch.full((2, 30), torch.nan))
    assert torch.isinf(distance).all()
    assert is_outlier.all()


@pytest.mark.parametrize(
    ("shape", "places"), [((3, 5, 5), (2, 3)), ((5, 5, 3), (1, 2)), ((7, 3), (1,)), ((3, 1, 1), (2, 3))]
)
def test_features_with_places_are_averaged_over_them(shape: tuple[int, ...], places: tuple[int, ...]) -> None:
    features = torch.randn(4, *shape)
    detector = OutlierDetector(2, shape)
    assert detector.means.shape == (2, 3)
    torch.testing.assert_close(detector.pooled(features), features.mean(places))
    torch.testing.assert_close(detector.pooled(features.flatten(1)), features.mean(places))


@pytest.mark.parametrize("content", [None, "words", {}, {"means": 1}, {"threshold": torch.zeros(())}])
def test_what_is_no_content_leaves_nothing(content: object) -> None:
    detector = fitted()
    detector.restore(content)
    assert not detector.is_fitted
    assert detector.threshold == math.inf


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
    scores = model.detect_outliers(model.feature_extractor().compute(1 - data.view("test", np.arange(100), 0)))
    assert scores is not None
    assert scores.is_outlier.float().mean() > 0.9
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
    assert loaded.detect_outliers(torch.zeros(1, 64)) is None
    # A net that knows its pictures forgets them for those of another run.
    quiet_trainer().test(model, data, ckpt_path=str(tmp_path / "old.ckpt"))
    assert model.outliers.threshold == math.inf
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


def threshold_of(model: TimmClassifier) -> float:
    assert model.outliers is not None
    assert model.outliers.is_fitted
    return model.outliers.threshold.item()


def test_a_second_run_learns_its_own_pictures(tmp_path: Path) -> None:
    model = net()
    run(tmp_path, model, digits(test_fraction=0.5))
    first = threshold_of(model)
    run(tmp_path, model, digits(test_fraction=0.8))
    second = threshold_of(model)
    assert first != second
    other = net()
    run(tmp_path, other, digits(test_fraction=0.8))
    assert threshold_of(other) == second


def test_averaged_weights_know_the_same(tmp_path: Path) -> None:
    one, other = net(), net()
    run(tmp_path, one, digits(test_fraction=0.5))
    average = EMAWeightAveraging(decay=0.9)
    quiet_trainer(max_epochs=2, callbacks=[average]).fit(other, digits(test_fraction=0.5))
    assert threshold_of(other) == pytest.approx(threshold_of(one), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_less_precision_refuses_no_more(precision: Any) -> None:
    data, model = digits(test_fraction=0.5), net()
    trainer = quiet_trainer(max_epochs=1, precision=precision)
    trainer.fit(model, data)
    (found,) = trainer.test(model, data)
    assert found["test/coverage"] > 0.9
    assert model.outliers is not None
    assert {buffer.dtype for buffer in model.outliers.buffers()} == {torch.float32}


def test_all_views_of_the_training_pictures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    learn = OutlierDetector.fit

    def look(self: OutlierDetector, train: Any, val: Any, fraction: float) -> Any:
        chunks = list(train)
        seen.extend(len(labels) for _, labels in chunks)
        labels = torch.cat([labels for _, labels in chunks])
        assert torch.equal(labels[: len(labels) // 2], labels[len(labels) // 2 :])
        return learn(self, chunks, val, fraction)

    monkeypatch.setattr(OutlierDetector, "fit", look)
    data = digits(test_fraction=0.8, augment=Augment(translate=2))
    run(tmp_path, net(feature_views=2), data)
    assert sum(seen) == 2 * len(data.splits["train"])


def test_flattened_features_are_averaged_over_their_places(tmp_path: Path) -> None:
    model = VGG16Classifier(num_classes=10, image_size=64, head="flattened", freeze_until="all", cache_features=True)
    assert model.outliers is not None
    assert model.outliers.means.shape == (10, 512)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_cut_within_a_net_has_one_row_of_features(name: str) -> None:
    size = 160 if name == "test_vit" else 32
    model = TimmClassifier(10, image_size=size, name=name, freeze_until="all", cache_features=True).eval()
    assert model.outliers is not None
    features = model.freezing.before(torch.rand(2, 3, size, size))
    assert model.outliers.pooled(features).shape == (2, model.outliers.means.shape[1])


def test_few_validation_pictures_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path, net(outlier_fraction=0.001), digits(test_fraction=0.9))
    (line,) = [record.message for record in caplog.records if "outlier_fraction" in record.message]
    assert ", as 0 of these " in line
    assert "outlier_fraction 0.001" in line
    assert "too few" in line


def test_a_test_may_ask_no_picture(tmp_path: Path) -> None:
    data, model = digits(test_fraction=0.5), net()
    run(tmp_path, model, data).save_checkpoint(tmp_path / "last.ckpt")
    (found,) = quiet_trainer().test(net(outlier_fraction=0.0), data, ckpt_path=str(tmp_path / "last.ckpt"))
    assert "test/coverage" not in found
    # A trial run computes no features, so that nothing is known of its pictures.
    (found,) = quiet_trainer(fast_dev_run=True).test(model, data)
    assert "test/coverage" not in found


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
