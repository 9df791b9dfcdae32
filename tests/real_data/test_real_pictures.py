"""The real archives, where they lie: PET_CIFAR_REAL_DATA names the folder."""

import csv
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pet_cifar.cli.main import main
from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule
from pet_cifar.data.manifest import Split
from pet_cifar.models import VGG16Classifier

FOLDER = Path(os.environ.get("PET_CIFAR_REAL_DATA", "nowhere"))
CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="PET_CIFAR_REAL_DATA names no folder with the real archives"),
]


@pytest.fixture
def cats_dogs(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    (archive,) = FOLDER.glob("kagglecatsanddogs_*.zip")
    (root / archive.name).symlink_to(archive)
    return root


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    with tarfile.open(FOLDER / "cifar10_jpeg.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


def test_every_cat_and_dog_is_checked_and_divided(cats_dogs: Path) -> None:
    data = CatsDogsDataModule(root=cats_dogs)
    data.prepare_data()
    bad = [picture.path for picture in data.check() if picture.is_bad]
    assert bad == ["Cat/666.jpg", "Dog/1702.jpg"]
    data.setup("fit")
    # Of two pictures that show the same, one would have been in the test split.
    assert {split: len(pictures) for split, pictures in data.splits.items()} == {"train": 3241, "val": 360, "test": 399}


def test_every_cifar10_picture_is_checked_and_divided(cifar10: Path) -> None:
    data = CIFAR10DataModule(root=cifar10)
    data.prepare_data()
    data.setup("fit")
    assert len(data.splits["val"]) == 5000
    assert len(data.splits["test"]) == 10000
    assert 44000 < len(data.splits["train"]) <= 45000
    train = {picture.hash for split in ("train", "val") for picture in data.splits[split]}
    assert train.isdisjoint(picture.hash for picture in data.splits["test"])


def test_the_cats_dogs_cnn_learns_from_real_pictures(cats_dogs: Path) -> None:
    options = ["--data.root", str(cats_dogs), "--data.images_per_class", "400", "--trainer.max_epochs", "6"]
    small = ["--data.image_size", "64", "--model.lr", "0.0005", "--data.augment.translate", "4"]
    main(["fit", "--config", str(CONFIGS / "cats_dogs_cnn.yaml"), *options, *small])
    with Path("lightning_logs/cats_dogs_cnn/version_0/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert losses[-1] < 0.68
    assert losses[-1] < losses[0]


def test_vgg16s_pretrained_features_tell_cats_from_dogs(cats_dogs: Path) -> None:
    model = VGG16Classifier(
        weights=str(FOLDER / "vgg16_imagenet_features.safetensors"), freeze_until="all", image_size=112
    )
    data = CatsDogsDataModule(
        root=cats_dogs, images_per_class=100, image_size=112, grayscale=False, test_fraction=0.4, cache="ram"
    )
    data.prepare_data()
    data.setup("fit")

    def features(split: Split) -> NDArray[np.float32]:
        image = data.pixels(split).take(np.arange(len(data.splits[split]))).float() / 255
        chunks = [image[first : first + 16] for first in range(0, len(image), 16)]
        with torch.inference_mode():
            batches = [model.backbone((some - model.mean) / model.std).mean((2, 3)) for some in chunks]
        return torch.cat(batches).numpy()

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    classifier.fit(features("train"), data.labels("train"))
    # The preprocessing of the weights' authors gives about 95 %; wrong statistics or swapped channels lose much of it.
    assert classifier.score(features("test"), data.labels("test")) > 0.85


def test_efficientnets_own_recipe_on_a_few_real_pictures(cats_dogs: Path) -> None:
    weights = ["--model.weights", str(FOLDER / "tf_efficientnet_lite0.safetensors")]
    few = ["--data.root", str(cats_dogs), "--data.images_per_class", "150", "--trainer.max_epochs", "30"]
    main(["fit", "--config", str(CONFIGS / "cats_dogs_efficientnet.yaml"), *weights, *few])
    tested = main(["test", "--run", "lightning_logs/cats_dogs_efficientnet"])
    assert tested is not None
    # 30 pictures: one may be wrong
    assert tested.trainer.callback_metrics["test/acc"] > 0.96
