import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from pet_cifar.callbacks import Calibration
from pet_cifar.callbacks.images.calibration import bin_by_confidence
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, run, small


def test_the_calibration_error_is_the_one_that_torchmetrics_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 10, (500,), generator=generator)
    probabilities = (3 * torch.randn(500, 10, generator=generator)).softmax(1)
    right = (probabilities.argmax(1) == label).numpy()
    sure = probabilities.amax(1).double().numpy()
    counts, confidence, accuracy = bin_by_confidence(sure, right, np.linspace(0, 1, 16))
    error = (counts * np.abs(confidence - accuracy)).sum() / counts.sum()
    assert counts.sum() == 500
    assert error == pytest.approx(multiclass_calibration_error(probabilities, label, 10, n_bins=15).item(), abs=1e-6)


def test_calibration_draws_and_writes_curves_of_every_class() -> None:
    _, directory = run(small(), digits(), [Calibration()])
    events = Events(directory)
    assert events.images == ["uncertainty/calibration/val"]
    assert len(events.values("val/calibration_error")) == 2
    assert {f"pr/val_{name}" for name in range(10)} <= set(events.tensors)
