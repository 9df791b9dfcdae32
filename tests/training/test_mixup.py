from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from pet_cifar.data import DigitsDataModule
from pet_cifar.data.loader import Batch
from pet_cifar.models import ResidualCNN
from pet_cifar.training.mixup import mixed
from tests.conftest import quiet_trainer

# Each picture is one value, which tells where its pixels went.
IMAGE = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 20, 20).contiguous()
LABEL = torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_labels_are_shared_as_pictures_are(mix: Any) -> None:
    torch.manual_seed(0)
    for _ in range(20):
        image, shares = mixed(IMAGE, LABEL, mix, 1.0, 6)
        assert shares.shape == (6, 6)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
        # The mean of a picture tells the shares of the two values in it.
        torch.testing.assert_close(image.mean((1, 2, 3)), shares @ torch.arange(6.0), atol=1e-4, rtol=1e-4)
        if mix == "cutmix":
            assert set(image.flatten().tolist()) <= set(range(6))


def test_both_takes_one_or_the_other() -> None:
    torch.manual_seed(0)
    kinds = set()
    for _ in range(30):
        image, _ = mixed(IMAGE, LABEL, "both", 1.0, 6)
        kinds.add(set(image.flatten().tolist()) <= set(range(6)))
    assert kinds == {True, False}


def small(**options: Any) -> ResidualCNN:
    return ResidualCNN(image_size=8, widths=[8, 8], **options)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_of_shares_is_the_shared_loss(num_classes: int, smoothing: float) -> None:
    model = small(num_classes=num_classes, label_smoothing=smoothing)
    logits = torch.randn(3, model.num_outputs)
    one, other = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    shares = 0.3 * F.one_hot(one, num_classes).float() + 0.7 * F.one_hot(other, num_classes)
    expected = 0.3 * model.loss(logits, one) + 0.7 * model.loss(logits, other)
    torch.testing.assert_close(model.loss(logits, shares), expected)


class Remember(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].detach().clone())


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixing_is_the_same_for_the_same_seed_and_follows_from_the_step(mix: Any) -> None:
    def run(noise: int) -> list[Tensor]:
        seed_everything(0)
        model, seen = small(mix=mix), Remember()
        torch.manual_seed(noise)
        quiet_trainer(max_epochs=1, callbacks=[seen]).fit(model, DigitsDataModule(image_size=8, batch_size=200))
        return seen.losses

    assert all(map(torch.equal, run(1), run(2)))


def test_training_counts_the_larger_share() -> None:
    seed_everything(0)
    model = small(mix="mixup", mix_alpha=0.2, optimizer="sgd", lr=0.2)
    trainer = quiet_trainer(max_epochs=8)
    trainer.fit(model, DigitsDataModule(image_size=8, batch_size=100))
    assert trainer.callback_metrics["train/acc"] > 0.6
    assert trainer.callback_metrics["val/acc"] > 0.8
