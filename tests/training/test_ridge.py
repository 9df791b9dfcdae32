"""The closed-form head against a loop that leaves out one picture after the other, and against scikit-learn."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN, TimmClassifier, VGG16Classifier
from pet_cifar.training import ClosedFormHead
from pet_cifar.training.ridge import accuracy_interval, fit_ridge, logit_scale, wilson_interval
from tests.conftest import quiet_trainer


def problem(count: int = 60, width: int = 8, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    features = rng.normal(size=(count, width)) * rng.uniform(0.1, 9, width) + labels[:, None] * rng.normal(size=width)
    return features, labels


@pytest.mark.parametrize("shape", [(60, 8, 3), (20, 40, 2)])
def test_left_out_scores_are_those_of_a_loop(shape: tuple[int, int, int]) -> None:
    features, labels = problem(*shape)
    found = fit_ridge(features, labels, shape[2])
    # The features keep the scale that they have with all pictures.
    inputs = (features - features.mean(0)) / features.std(0)
    targets = np.where(labels[:, None] == np.arange(shape[2]), 1.0, -1.0)
    for row in range(len(labels)):
        others = np.arange(len(labels)) != row
        model = Ridge(found.penalty).fit(inputs[others], targets[others])
        np.testing.assert_allclose(found.left_out[row], np.ravel(model.predict(inputs[row : row + 1])), atol=1e-8)


@pytest.mark.parametrize("number", [25, 3])
def test_left_out_groups_are_those_of_a_loop(number: int) -> None:
    features, labels = problem()
    groups = np.random.default_rng(1).integers(0, number, len(labels))
    found = fit_ridge(features, labels, 3, groups)
    inputs = (features - features.mean(0)) / features.std(0)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    for group in np.unique(groups):
        inside = groups == group
        model = Ridge(found.penalty).fit(inputs[~inside], targets[~inside])
        np.testing.assert_allclose(found.left_out[inside], model.predict(inputs[inside]), atol=1e-8)


def test_a_head_that_knows_the_subject_and_not_the_class_is_found_out() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    labels = rng.integers(0, 2, 40)[groups]
    features = rng.normal(size=(40, 60))[groups] + 0.1 * rng.normal(size=(320, 60))
    alone = (fit_ridge(features, labels, 2).left_out.argmax(1) == labels).mean()
    right = fit_ridge(features, labels, 2, groups).left_out.argmax(1) == labels
    assert alone > 0.95
    assert right.mean() < 0.7
    low, high = accuracy_interval(right, groups)
    assert high - low > 2 * np.subtract(*wilson_interval(int(right.sum()), 320)[::-1])
    assert low < 0.5 < high


def test_the_interval_of_single_pictures_is_wilsons_and_that_of_groups_covers() -> None:
    right = np.arange(100) < 90
    assert accuracy_interval(right, np.arange(100)) == wilson_interval(90, 100)
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    covered = []
    for _ in range(300):
        chance = rng.beta(8, 2, 30)[groups]
        low, high = accuracy_interval(rng.random(150) < chance, groups)
        covered.append(low <= 0.8 <= high)
    assert np.mean(covered) >= 0.93
    low, high = accuracy_interval(np.ones(150, bool), groups)
    assert low == pytest.approx(wilson_interval(30, 30, 2.045)[0], abs=0.01)


def test_the_head_is_scikit_learns_on_standardized_features() -> None:
    features, labels = problem()
    found = fit_ridge(features, labels, 3)
    inputs = (features - features.mean(0)) / features.std(0)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    expected = Ridge(found.penalty).fit(inputs, targets).predict(inputs)
    np.testing.assert_allclose(features @ found.weight.T + found.bias, expected, atol=1e-8)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = problem()
    found = fit_ridge(np.hstack([features, np.full((60, 1), 7.0)]), labels, 3)
    assert np.isfinite(found.weight).all()
    np.testing.assert_allclose(found.left_out, fit_ridge(features, labels, 3).left_out, atol=1e-8)


def test_the_scale_of_logits_is_the_one_with_the_lowest_loss() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 3)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    assert logit_scale(logits / 5, labels) == pytest.approx(5, rel=0.15)


@pytest.mark.parametrize(("right", "count", "interval"), [(395, 400, (0.9711, 0.9946)), (393, 400, (0.9644, 0.9915))])
def test_intervals_are_wilsons(right: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(right, count) == pytest.approx(interval, abs=2e-4)


# The callback


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule(".", image_size=32, batch_size=100, **options)


def net(**options: Any) -> TimmClassifier:
    defaults: dict[str, Any] = {"freeze_until": "all", "cache_features": True, "lr": 0.0, "schedule": "constant"}
    torch.manual_seed(0)
    return TimmClassifier(num_classes=10, image_size=32, name="test_convnext", **(defaults | options))


def test_the_net_scores_as_its_head_was_solved(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data, model = digits(), net()
    trainer = quiet_trainer(max_epochs=1, callbacks=[ClosedFormHead()])
    trainer.fit(model, data)
    assert "left-out accuracy: " in caplog.text
    assert "of 1,437 training pictures" in caplog.text
    accuracy = trainer.callback_metrics["val/acc"].item()
    assert accuracy > 0.5, "random features of an untrained net tell digits apart, too"
    rows = np.arange(200)
    model.freezing.frozen = len(model.freezing.stages)
    with torch.no_grad():
        image = data.view("train", rows, 0)
        features = model.freezing.before(model.normalized(image)).flatten(1)
        expected = model.head[-1](features)
    torch.testing.assert_close(model.eval()(image), expected, atol=0.05, rtol=0.01)


@pytest.mark.parametrize(
    "model",
    [
        ResidualCNN(image_size=32, widths=[4]),
        net(cache_features=False),
        net(freeze_until="stages.0"),
        VGG16Classifier(
            num_classes=10, image_size=32, head="flattened", weights="none", freeze_until="all", cache_features=True
        ),
    ],
    ids=["no pretrained net", "no features", "a part is trained", "two dense layers"],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_other_nets_are_refused(model: nn.Module) -> None:
    assert isinstance(model, ResidualCNN | TimmClassifier | VGG16Classifier)
    with pytest.raises(InputError, match="ClosedFormHead solves .* --model.freeze_until all"):
        quiet_trainer(max_epochs=1, callbacks=[ClosedFormHead()]).fit(model, digits(test_fraction=0.9))


def test_pictures_of_a_group_are_left_out_together(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = digits()
    data.setup("fit")
    data.groups = {record.path: str(row // 3) for row, record in enumerate(data.splits["train"])}
    quiet_trainer(max_epochs=1, callbacks=[ClosedFormHead()]).fit(net(), data)
    assert "of 1,437 training pictures in 479 groups" in caplog.text


def test_weights_of_classes_are_refused_and_a_trial_run_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="class_weights is balanced"):
        quiet_trainer(max_epochs=1, callbacks=[ClosedFormHead()]).fit(net(class_weights="balanced"), digits())
    caplog.set_level("INFO")
    quiet_trainer(fast_dev_run=True, callbacks=[ClosedFormHead()]).fit(net(), digits())
    assert "fast_dev_run" in caplog.text
