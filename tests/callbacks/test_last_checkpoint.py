"""When a run is saved to go on, and what it does once it is asked to stop."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks import LastCheckpoint, last_checkpoint
from pet_cifar.callbacks.last_checkpoint import AGREE_EVERY
from pet_cifar.callbacks.stop_request import Stopped
from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from tests.conftest import quiet_trainer


class Clock:
    """Goes on by a minute with every step of a run, and by so many seconds with every checkpoint."""

    def __init__(self, saving: float) -> None:
        self.now, self.saving = 0.0, saving
        self.saved_at: list[int] = []

    def __call__(self) -> float:
        return self.now


class Ticks(Callback):
    """Moves a clock, and notes the steps that were saved."""

    def __init__(self, clock: Clock, step: float = 60.0) -> None:
        self.clock, self.step = clock, step

    def on_train_batch_start(self, *args: Any) -> None:
        self.clock.now += self.step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.clock.now += self.clock.saving
        self.clock.saved_at.append(trainer.global_step)


def train(tmp_path: Path, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = quiet_trainer(
        **{"max_epochs": 2, "enable_checkpointing": True, "default_root_dir": tmp_path, **options},
        callbacks=list(callbacks),
    )
    trainer.fit(ResidualCNN(image_size=8, widths=[4]), DigitsDataModule(image_size=8, batch_size=100))
    return trainer


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        # An epoch has 14 steps.
        (1.0, [0, 5, 10, 14, 19, 24, 28]),
        # A second in ten minutes is a sixth of a percent; six are one percent, and more come more rarely.
        (6.0, [0, 10, 14, 24, 28]),
        (60.0, [0, 14, 28]),
    ],
)
def test_it_saves_before_every_epoch_and_every_few_minutes(
    saving: float, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(saving)
    monkeypatch.setattr(last_checkpoint, "monotonic", clock)
    train(tmp_path, Ticks(clock), LastCheckpoint(minutes=5))
    assert clock.saved_at == expected
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 28


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # An epoch of 14 steps takes 1.4 s, so that the fourth one is the first that begins 5 s after the run.
        (0.1, [0, 4 * 14, 6 * 14]),
        (0.2, [0, 2 * 14, 4 * 14, 6 * 14]),
        (0.5, [epoch * 14 for epoch in range(7)]),
        (0.001, [0, 6 * 14]),
    ],
)
def test_short_epochs_save_every_few_seconds_and_at_the_end(
    step: float, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(0.0)
    monkeypatch.setattr(last_checkpoint, "monotonic", clock)
    train(tmp_path, Ticks(clock, step), LastCheckpoint(), max_epochs=6, limit_val_batches=0)
    assert clock.saved_at == expected


def test_a_stop_at_the_begin_of_a_short_epoch_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, last = Clock(0.0), LastCheckpoint()
    monkeypatch.setattr(last_checkpoint, "monotonic", clock)
    with pytest.raises(Stopped):
        train(tmp_path, Ticks(clock, 0.001), Asks(last, 13), last, limit_val_batches=0)
    assert clock.saved_at == [0, 14]


def test_gradients_that_are_being_gathered_are_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    monkeypatch.setattr(last_checkpoint, "monotonic", clock)
    train(tmp_path, Ticks(clock), LastCheckpoint(minutes=1), max_epochs=1, accumulate_grad_batches=4)
    assert clock.saved_at == [0, 1, 2, 3, 4]


class Asks(Callback):
    """Asks a run to stop at one batch."""

    def __init__(self, last: LastCheckpoint, batch: int) -> None:
        self.last, self.batch = last, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self.last.stop.is_heard
        if batch_idx == self.batch:
            self.last.stop.signal = signal.SIGTERM


@pytest.mark.parametrize(("batch", "step"), [(0, 1), (5, 6), (13, 14)])
def test_it_stops_after_a_checkpoint(batch: int, step: int, tmp_path: Path) -> None:
    last = LastCheckpoint()
    with pytest.raises(Stopped) as stopped:
        train(tmp_path, Asks(last, batch), last, limit_val_batches=0)
    assert stopped.value.signal == signal.SIGTERM
    assert not last.stop.is_heard
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == step


def test_several_processes_ask_each_other_every_few_steps() -> None:
    asked: list[bool] = []

    def decide(wish: bool, all: bool) -> bool:
        asked.append(wish)
        return True

    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce_boolean_decision=decide))
    last = LastCheckpoint()
    answers = [last._agree(trainer, False, batch) for batch in range(3 * AGREE_EVERY)]
    assert [batch for batch, answer in enumerate(answers) if answer] == [0, AGREE_EVERY, 2 * AGREE_EVERY]
    assert len(asked) == 3
    # A process that got no signal stops with the one that did.
    with pytest.raises(Stopped):
        last._stop_if_asked(trainer)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_no_time_is_refused(minutes: float) -> None:
    with pytest.raises(InputError, match="minutes is"):
        LastCheckpoint(minutes=minutes)
