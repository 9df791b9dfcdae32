import csv
from pathlib import Path

import numpy as np
import pytest
from lightning import seed_everything

from pet_cifar.callbacks import ConfusionMatrix
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, run, small


def test_the_confusion_matrix_counts_every_validation_picture(tmp_path: Path) -> None:
    seed_everything(0)
    model = small()
    trainer, directory = run(model, digits(), [ConfusionMatrix()], epochs=1)
    with (directory / "val" / "confusion_matrix.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["label", *(f"predicted_{name}" for name in range(10))]
    counts = np.array([[int(x) for x in line[1:]] for line in lines])
    assert counts.sum() == 180
    assert counts.trace() / 180 == pytest.approx(trainer.callback_metrics["val/acc"].item())
    assert Events(directory).images == ["predictions/confusion_matrix/val"]
