"""``overfit_batches``: the same training pictures in every epoch, as they are, and validated on the same."""

from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from pet_cifar.data import CatsDogsDataModule, DigitsDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.loader import Batch
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, ResidualCNN
from tests.conftest import quiet_trainer, write_cats_dogs


class Seen(Callback):
    """Keeps the pictures of every batch as the net gets them."""

    def __init__(self) -> None:
        self.train: list[Tensor] = []
        self.val: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.train.append(batch.image.clone())

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.val.append(batch.image.clone())


@pytest.mark.parametrize(("overfit", "batches"), [(1, 1), (2, 2), (0.5, 2), (0.05, None)])
def test_every_epoch_trains_and_validates_the_same_pictures(
    tmp_path: Path, overfit: float, batches: int | None
) -> None:
    write_cats_dogs(tmp_path, per_class=30, size=16)
    # 48 pictures train, which are 4 batches.
    data = CatsDogsDataModule(
        root=tmp_path,
        image_size=16,
        batch_size=12,
        val_fraction=1 / 9,
        augment=Augment(flip="alternating", translate=3),
    )
    seen = Seen()
    trainer = quiet_trainer(max_epochs=3, overfit_batches=overfit, callbacks=[seen])
    model = CatsDogsCNN(image_size=16, mix="mixup")
    if batches is None:
        with pytest.raises(InputError, match=r"--trainer.overfit_batches 0.05 of 4 .* 0.25"):
            trainer.fit(model, data)
        return
    trainer.fit(model, data)
    assert len(seen.train) == len(seen.val) == 3 * batches
    for epoch in range(3):
        own = slice(epoch * batches, (epoch + 1) * batches)
        assert torch.equal(torch.cat(seen.train[own]), torch.cat(seen.train[:batches]))
        assert torch.equal(torch.cat(seen.val[own]), torch.cat(seen.train[:batches]))
    assert {record.label for record in data.splits["train"]} == {"cat", "dog"}
    assert data.splits["val"] == data.splits["train"]


def test_a_run_after_it_has_all_pictures_again_and_the_same_fingerprint() -> None:
    data = DigitsDataModule(image_size=8, batch_size=200)
    quiet_trainer(max_epochs=1, overfit_batches=1).fit(ResidualCNN(image_size=8, widths=[4]), data)
    few, fingerprint = len(data.splits["train"]), data.fingerprint
    seen = Seen()
    trainer = quiet_trainer(max_epochs=1, callbacks=[seen])
    trainer.fit(ResidualCNN(image_size=8, widths=[4]), data)
    assert few == 200
    assert sum(map(len, seen.train)) == 1400
    assert data.fingerprint == fingerprint == _fingerprint_of_a_plain_run()


def _fingerprint_of_a_plain_run() -> str:
    data = DigitsDataModule(image_size=8)
    data.prepare_data()
    data.setup("fit")
    return data.fingerprint
