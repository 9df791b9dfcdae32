import csv
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from pet_cifar.callbacks import ThroughputMonitor, throughput_monitor
from pet_cifar.data import DigitsDataModule
from pet_cifar.models import PlainCNN, ResidualCNN, SpeedrunCNN
from pet_cifar.training import ImageClassifier


class Watch(Callback):
    """Notes what `ThroughputMonitor` should report, and makes validation slow."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.images = 0
        self.start = self.slept = 0.0
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.images, self.start, self.slept = 0, time.perf_counter(), 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.images += len(batch.label)

    def on_validation_batch_end(self, *_: Any) -> None:
        time.sleep(0.3)
        self.slept += 0.3

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start - self.slept)


def fit(
    callback: Callback, model: ImageClassifier | None = None, **options: Any
) -> tuple[Trainer, list[dict[str, str]]]:
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": CSVLogger(".", "logs"),
            "log_every_n_steps": 2,
            "callbacks": [ThroughputMonitor(), callback],
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **options,
        }
    )
    model = model or ResidualCNN(image_size=8, widths=[8, 8], lr=0.01)
    trainer.fit(model, DigitsDataModule(image_size=8, batch_size=200))
    file = Path(str(trainer.log_dir)) / "metrics.csv"
    with file.open(newline="") as opened:
        return trainer, list(csv.DictReader(opened))


def test_seconds_are_those_of_training_and_pictures_are_counted() -> None:
    watch = Watch()
    trainer, rows = fit(watch)
    logged = [row for row in rows if row.get("epoch_seconds")]
    assert len(logged) == 2
    assert watch.images == 1400
    for row, seconds in zip(logged, watch.seconds, strict=True):
        assert 0 < float(row["epoch_seconds"]) <= seconds + 0.05
        assert float(row["images_per_second"]) * float(row["epoch_seconds"]) == pytest.approx(1400, rel=1e-4)
    assert trainer.callback_metrics["epoch_seconds"].item() == pytest.approx(float(logged[-1]["epoch_seconds"]))
    # The values are in 10^9 bytes; torch alone takes more than the lower limit.
    assert all(0.05 < float(row["memory_gb"]) < 100 for row in logged)


def test_a_system_that_does_not_tell_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput_monitor, "peak_memory", lambda: None)
    _, rows = fit(Watch(), max_epochs=1, limit_val_batches=0)
    assert any(row.get("epoch_seconds") for row in rows)
    assert not any(row.get("memory_gb") for row in rows)


def test_a_sanity_check_does_not_count() -> None:
    watch = Watch()
    _, rows = fit(watch, num_sanity_val_steps=1, max_epochs=1)
    (seconds,) = [float(row["epoch_seconds"]) for row in rows if row.get("epoch_seconds")]
    assert 0 < seconds <= watch.seconds[0] + 0.05


def test_the_rate_is_logged_now_and_then() -> None:
    _, rows = fit(Watch(), limit_val_batches=0)
    assert [int(row["step"]) for row in rows if row.get("lr")] == [2, 4, 6, 8, 10, 12, 14]


def test_the_logged_rate_is_the_one_that_the_step_was_made_with() -> None:
    watch = Watch()
    _, rows = fit(watch, limit_val_batches=0)
    logged = {int(row["step"]): float(row["lr"]) for row in rows if row.get("lr")}
    assert logged == pytest.approx({step: watch.rates[step - 1] for step in logged})


@pytest.mark.parametrize(
    "model",
    [
        PlainCNN(image_size=8, lr=0.01, head_lr_factor=0.1, schedule="constant", warmup_fraction=0),
        SpeedrunCNN(image_size=8, widths=[8], lr=0.01, schedule="constant", warmup_fraction=0, optimizer="sgd"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_logged_rate_is_the_one_that_was_asked_for_and_not_a_multiple(model: ImageClassifier) -> None:
    _, rows = fit(Watch(), model, max_epochs=1, limit_val_batches=0)
    assert {float(row["lr"]) for row in rows if row.get("lr")} == {0.01}


def test_nothing_is_needed_of_a_logger() -> None:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=2,
        logger=False,
        callbacks=[ThroughputMonitor()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(ResidualCNN(image_size=8, widths=[8, 8]), DigitsDataModule(image_size=8, batch_size=200))
    assert trainer.callback_metrics["images_per_second"].item() > 0


def test_the_clock_is_read_when_a_gpu_has_done_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    # The work that was given to the device ends three seconds later.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seconds.append(seconds.pop() + 3.0))
    on_gpu = SimpleNamespace(root_device=torch.device("cuda", 0))
    trainer = cast(Trainer, SimpleNamespace(strategy=on_gpu, sanity_checking=False))
    watch, module = ThroughputMonitor(), cast(LightningModule, None)
    watch.on_train_epoch_start(trainer, module)
    watch.on_validation_start(trainer, module)
    assert watch._seconds == 3.0
