"""The budget of a run's pictures, and when nothing is drawn at all."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from pet_cifar import callbacks
from pet_cifar.callbacks import Board, FirstLayerFilters, drawing_time
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.models import ResidualCNN, VGG16Classifier
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events, size
from tests.callbacks.small_runs import IMAGE_CALLBACKS, digits, every_callback, groups, run, small
from tests.conftest import quiet_trainer


@pytest.mark.parametrize("logger", [False, "csv"])
def test_without_tensorboard_one_line_and_training_goes_on(
    logger: bool | str, caplog: pytest.LogCaptureFixture
) -> None:
    # The level is not set here, so the line has to be a warning for users of Python to see it.
    trainer = quiet_trainer(
        logger=CSVLogger("logs") if logger else False,
        max_epochs=1,
        limit_train_batches=2,
        callbacks=every_callback(),
    )
    trainer.fit(ResidualCNN(image_size=8, widths=[8]), digits(8))
    assert trainer.global_step == 2
    assert [record.message for record in caplog.records if "pictures" in record.message] == [
        "no pictures are drawn: they need a TensorBoardLogger, and this run has none"
    ]


def test_nothing_is_drawn_in_a_rehearsal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        trainer = quiet_trainer(fast_dev_run=True, callbacks=every_callback())
        trainer.fit(ResidualCNN(image_size=8, widths=[8]), digits(8))
    assert "pictures are drawn" not in caplog.text


def test_near_the_limit_pictures_come_more_rarely_and_scalars_stay(caplog: pytest.LogCaptureFixture) -> None:
    megabytes = 0.4
    # These are named one by one, because the epoch in which the budget runs short depends on what is drawn.
    drawing = [
        *(kind(every_n_epochs=1) for kind in (callbacks.ConfusionMatrix, callbacks.Calibration, FirstLayerFilters)),
        callbacks.HyperParameters(),
    ]
    with caplog.at_level(logging.INFO, "pet_cifar"):
        _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), [Board(megabytes), *drawing], epochs=16)
    events = Events(directory)
    drawn = events.steps("predictions/confusion_matrix/val")
    gaps = np.diff(drawn)
    assert gaps.max() >= 12, "every fourth epoch or more rarely"
    assert len(events.values("val/acc")) == len(events.values("hparams/best_val_acc")) == 16
    scalars = sum(len(events.values(tag)) for tag in events.scalars)
    assert size(directory) <= megabytes * 1e6 + 100 * scalars
    lines = [record.message for record in caplog.records if "MB" in record.message]
    assert sum("more rarely" in line for line in lines) == 1
    assert sum("was left out" in line for line in lines) <= 1
    assert f"of at most {megabytes} MB" in lines[-1]


def test_a_budget_of_nothing_draws_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), [Board(0), *every_callback()])
    events = Events(directory)
    assert events.images == []
    _, full = run(ResidualCNN(image_size=8, widths=[8]), digits(8), every_callback())
    assert {tag: len(events.values(tag)) for tag in events.scalars} == {
        tag: len(Events(full).values(tag)) for tag in Events(full).scalars
    }
    assert "custom_scalars__config__" in events.tensors
    assert "MB" not in caplog.text.partition("of at most 50 MB")[0]


def test_a_test_goes_on_spending_the_runs_budget() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    _, directory = run(model, data, [Board(), *every_callback()])
    board = Board()
    logger = TensorBoardLogger("logs", "run", version=0)
    trainer = quiet_trainer(logger=logger, callbacks=[board, callbacks.ConfusionMatrix()])
    held = size(directory) / 1e6
    trainer.test(model, data, verbose=False)
    assert board.megabytes > held > 0.1
    assert "predictions/confusion_matrix/test" in Events(directory).images


def test_a_test_keeps_to_its_runs_budget_unless_told_otherwise() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    trainer, _ = run(model, data, [Board(0.123), callbacks.ConfusionMatrix()], epochs=1)
    trainer.save_checkpoint("run.ckpt")
    for given, kept in ((None, 0.123), (7.0, 7.0)):
        board = Board(given)
        logger = TensorBoardLogger("logs", f"test{given}")
        tester = quiet_trainer(logger=logger, callbacks=[board, callbacks.ConfusionMatrix()])
        tester.test(model, data, ckpt_path="run.ckpt", weights_only=True, verbose=False)
        assert board.max_megabytes == kept
        # The picture stands at the step that the checkpoint was saved at.
        assert Events(Path(logger.log_dir)).steps("predictions/confusion_matrix/test") == [3]


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_twenty_epochs_of_the_largest_drawings_stay_under_twenty_megabytes(
    cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing_time, "LARGEST_SHARE", float("inf"))
    # Noise does not compress, and 13 convolutions are the most that a config has. Every drawing comes at least once in
    # five epochs, so four times five epochs take at least as much as twenty.
    data = CatsDogsDataModule(cats_dogs_root, image_size=64, batch_size=8, grayscale=False)
    pictures = [kind() for kind in IMAGE_CALLBACKS if kind.by_default]
    options: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 5}
    _, directory = run(VGG16Classifier(image_size=64, freeze_until="all"), data, pictures, **options)
    assert len(Events(directory).images) >= 12
    assert 4 * size(directory) < 20e6


def test_the_budget_spent_is_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        run(small(), digits(), [FirstLayerFilters()], epochs=1)
    assert "of at most 50 MB" in caplog.records[-1].message


class Diverged(ImageClassifier):
    """Predicts numbers for every second picture only."""

    def __init__(self) -> None:
        super().__init__(image_size=8)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = super().forward(image).clone()
        if not self.training:
            logits[::2] = float("nan")
        return logits


def test_probabilities_that_are_not_numbers_are_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pictures = [one for one in every_callback() if not isinstance(one, callbacks.GradCAM)]
    _, directory = run(Diverged(), digits(8), pictures, epochs=1)
    assert {"predictions", "uncertainty", "mistakes"} <= groups(directory)
    assert "90 of 180 pictures have probabilities that are not numbers" in caplog.text or "91 of 180" in caplog.text


def test_predictions_are_not_collected_where_nothing_shows_them() -> None:
    board = Board()
    run(ResidualCNN(image_size=8, widths=[8]), digits(8), [board, FirstLayerFilters()], epochs=1)
    assert not board._collects
