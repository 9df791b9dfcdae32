"""How much each class counts in the training loss."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, ResidualCNN
from pet_cifar.training.class_weights import class_weights
from pet_cifar.training.loss import classification_loss
from tests.conftest import quiet_trainer

NAMES = ("apple", "pear", "plum")
LABELS = np.array([0] * 10 + [1] * 3 + [2] * 2)


def test_balanced_is_what_scikit_learn_calls_so() -> None:
    found = class_weights("balanced", NAMES, LABELS)
    assert found is not None
    assert found.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=LABELS))
    assert found[torch.from_numpy(LABELS)].mean() == pytest.approx(1.0)


def test_some_classes_may_be_weighed_by_name() -> None:
    found = class_weights({"plum": 5}, NAMES, LABELS)
    assert found is not None
    assert found.tolist() == [1, 1, 5]
    assert class_weights("none", NAMES, LABELS) is None
    with pytest.raises(InputError, match="class_weights: there is no class plumb; .*did you mean plum"):
        class_weights({"plumb": 5}, NAMES, LABELS)


@pytest.mark.parametrize("weights", ["balancd", {"plum": -1.0}, {"plum": 0.0}, {"plum": float("inf")}])
def test_weights_that_make_no_sense_are_refused(weights: Any) -> None:
    with pytest.raises(InputError, match="^class_weights"):
        ResidualCNN(class_weights=weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_one_logit_is_that_of_two(smoothing: float) -> None:
    net = CatsDogsCNN(image_size=16, label_smoothing=smoothing)
    logits, label = torch.randn(20, 1), torch.randint(0, 2, (20,))
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    weight = torch.tensor([0.5, 3.0])
    expected = F.cross_entropy(two, label, weight, label_smoothing=smoothing)
    torch.testing.assert_close(net.loss(logits, label, weight), expected)
    torch.testing.assert_close(net.loss(logits, label, torch.ones(2)), net.loss(logits, label))


def test_training_weighs_and_validation_does_not() -> None:
    def fit(**options: Any) -> dict[str, float]:
        torch.manual_seed(0)
        trainer = quiet_trainer(max_epochs=1, limit_train_batches=1)
        net = ResidualCNN(image_size=8, widths=[4], lr=0.0, mean=[0.5] * 3, std=[0.5] * 3, **options)
        trainer.fit(net, DigitsDataModule(image_size=8, batch_size=300))
        return {name: value.item() for name, value in trainer.callback_metrics.items()}

    plain, weighed = fit(), fit(class_weights={"3": 50.0})
    assert plain["val/loss"] == weighed["val/loss"]
    assert plain["train/loss"] != pytest.approx(weighed["train/loss"], abs=1e-4)


def test_without_a_data_module_that_names_classes_it_is_refused() -> None:
    loader = [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))]
    net = ResidualCNN(image_size=8, widths=[4], class_weights="balanced")
    with pytest.raises(InputError, match="class_weights is balanced"):
        quiet_trainer(max_epochs=1).fit(net, loader, loader)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shares_of_a_class_weigh_as_its_number_does(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, label, weight = torch.randn(8, 3), torch.tensor([0, 0, 0, 1, 1, 2, 0, 2]), torch.tensor([0.5, 1.0, 4.0])
    by_number = classification_loss(logits, label, smoothing, weight)
    by_share = classification_loss(logits, F.one_hot(label, 3).float(), smoothing, weight)
    assert by_share.item() == pytest.approx(by_number.item(), rel=1e-5)
    doubled = classification_loss(logits, F.one_hot(label, 3).float(), smoothing, 2 * weight)
    assert doubled.item() == pytest.approx(by_number.item(), rel=1e-5)


def test_names_that_are_numbers_may_be_numbers() -> None:
    net = ResidualCNN(class_weights={1: 3.0})
    found = class_weights(net.class_weights, ("0", "1", "2"), LABELS)
    assert found is not None
    assert found.tolist() == [1, 3, 1]
