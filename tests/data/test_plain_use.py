"""The data modules with a net that knows nothing of this package, and without a trainer."""

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from pet_cifar.data import DigitsDataModule
from pet_cifar.data.augment import Augment
from tests.conftest import quiet_trainer


class Plain(LightningModule):
    """A dense layer, as a course writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 10)
        self.seen: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        self.seen.append(x)
        loss = F.cross_entropy(self.layer(x.flatten(1)), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("acc", (self.layer(x.flatten(1)).argmax(1) == y).float().mean())

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def test_a_plain_net_takes_pictures_and_labels_out_of_a_batch() -> None:
    data = DigitsDataModule(image_size=8, batch_size=100, augment=Augment(translate=1))
    trainer, net = quiet_trainer(max_epochs=5), Plain()
    trainer.fit(net, data)
    assert all(x.dtype == torch.float32 and 0 <= x.min() <= x.max() <= 1 for x in net.seen)
    (scores,) = trainer.test(net, data, verbose=False)
    assert scores["acc"] > 0.8


def test_loaders_without_a_trainer_prepare_the_data_themselves() -> None:
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        data = DigitsDataModule(image_size=8, batch_size=50)
        images, labels = next(iter(getattr(data, name)()))
        assert images.shape[1:] == (3, 8, 8)
        assert len(images) == len(labels)
