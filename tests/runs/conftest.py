"""Two finished runs whose directories other tests only read."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pet_cifar.cli.main import main
from tests.conftest import HOME

TINY = ["--trainer.max_epochs", "1", "--model.widths", "[8, 16]"]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits with its test, and below ``pictures`` the first twelve pictures of that test as PNG files."""
    home, folder = Path.cwd(), tmp_path_factory.mktemp("digits")
    os.chdir(folder)
    try:
        main(["fit", "--config", str(HOME / "configs/digits_residual.yaml"), *TINY])
        main(["test", "--run", "lightning_logs/digits_residual"])
    finally:
        os.chdir(home)
    run = folder / "lightning_logs" / "digits_residual" / "version_0"
    (folder / "pictures").mkdir()
    for row in predictions_of(run)[:12]:
        number = int(row["path"].partition("#")[2])
        pixels = np.rint(load_digits().images[number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:04d}.png")
    return run


def predictions_of(run: Path) -> list[dict[str, str]]:
    with (run / "test" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def pictures(digits_run: Path) -> Path:
    return digits_run.parents[2] / "pictures"
