from pathlib import Path
from typing import Any

import numpy as np
import torch

from pet_cifar.callbacks import Board, WorstMistakes
from pet_cifar.callbacks.images.base import escape
from pet_cifar.callbacks.images.drawing import channels_last, scale_to
from pet_cifar.callbacks.predictions import Predictions
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import RecordingBoard, holds, run


class Certain(ImageClassifier):
    """Says class 1 of every picture, the more certainly the brighter it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.head = torch.nn.Linear(3, self.num_outputs)
        torch.nn.init.ones_(self.head.weight)
        torch.nn.init.constant_(self.head.bias, 5.0)


def test_the_worst_mistakes_are_the_most_certain_wrong_ones(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, val_fraction=0.3, grayscale=False)
    model = Certain(num_classes=2, image_size=40, lr=1e-9, mean=[0.5] * 3, std=[0.25] * 3)
    board = RecordingBoard()
    _, directory = run(model, data, [board, WorstMistakes(most=3)], epochs=1)
    cats = [row for row, picture in enumerate(data.splits["val"]) if picture.label == data.class_names[0]]
    pixels = data.pixels("val").take(np.arange(len(data.splits["val"]))).numpy()
    brightest = sorted(cats, key=lambda row: -pixels[row].mean())[:3]
    text = Events(directory).text("mistakes/val")
    places = [text.index(escape(data.splits["val"][row].path)) for row in brightest]
    assert places == sorted(places)
    assert text.count("| cat | dog |") == 3
    for row in brightest:
        assert holds(board.drawn["mistakes/val"][-1], scale_to(channels_last(pixels[row]), 128))


def test_a_net_without_mistakes_is_told_so(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, val_fraction=0.3, grayscale=False)
    board = Board()
    trainer, directory = run(Certain(num_classes=2, image_size=40, lr=1e-9), data, [board], epochs=1)
    row = torch.arange(4)
    board.predictions = Predictions(row, row % 2, torch.nn.functional.one_hot(row % 2, 2).float())
    WorstMistakes().draw(trainer.lightning_module, data, board, "val", "after 1 epochs")  # type: ignore[arg-type]
    board.writer.flush()
    assert "no mistake in 4 pictures" in Events(directory).text("mistakes/val")
