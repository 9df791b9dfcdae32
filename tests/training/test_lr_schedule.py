"""The schedule spans the steps of the whole run, whatever changes their number."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from pet_cifar.data import DigitsDataModule
from pet_cifar.models import ResidualCNN
from tests.conftest import quiet_trainer

LR = 0.01


class Rates(Callback):
    """Remembers the learning rate that each step of the optimizer is made with."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def fit(batch_size: int = 200, ckpt_path: Path | None = None, **options: Any) -> tuple[Trainer, list[float]]:
    rates = Rates()
    callbacks = [rates, *options.pop("callbacks", [])]
    trainer = quiet_trainer(**{"limit_train_batches": 7, "limit_val_batches": 0, "callbacks": callbacks, **options})
    model = ResidualCNN(image_size=8, widths=[4], lr=LR, schedule="cosine", warmup_fraction=0.0)
    trainer.fit(model, DigitsDataModule(image_size=8, batch_size=batch_size), ckpt_path=ckpt_path, weights_only=True)
    return trainer, rates.rates


@pytest.mark.parametrize(
    ("scheduling", "steps"),
    [({0: 4, 3: 1}, 3 * 2 + 2 * 7), ({0: 1, 2: 7}, 2 * 7 + 3), ({0: 2, 9: 1}, 5 * 4), ({2: 3}, 2 * 7 + 3 * 3)],
)
def test_a_changing_accumulation_still_ends_at_the_end(scheduling: dict[int, int], steps: int) -> None:
    trainer, rates = fit(max_epochs=5, callbacks=[GradientAccumulationScheduler(scheduling)])
    assert trainer.global_step == len(rates) == steps
    assert all(later < earlier for earlier, later in pairwise(rates)), "no two steps have the same rate"
    assert 0 < rates[-1] < LR * 10 / steps**2, "the last step trains at nearly nothing, and trains"


@pytest.mark.parametrize(("batch_size", "batches"), [(100, 14), (400, 3)])
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_run_that_goes_on_with_other_batches_ends_at_the_end(tmp_path: Path, batch_size: int, batches: int) -> None:
    trainer, _ = fit(max_epochs=4, callbacks=[StopAfter(2)])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    options: dict[str, Any] = {"max_epochs": 4, "limit_train_batches": batches, "ckpt_path": tmp_path / "half.ckpt"}
    trainer, rates = fit(batch_size, **options)
    assert trainer.global_step == 2 * 7 + 2 * batches
    assert 0 < rates[-1] < LR * 0.05
    # The first step is made at the checkpoint's rate.
    assert all(later < earlier for earlier, later in pairwise(rates[1:]))


class StopAfter(Callback):
    """Stops a run after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs
